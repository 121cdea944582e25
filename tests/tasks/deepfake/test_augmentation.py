"""The key `augmentation`: operations that treat a real face and its fake alike, with the declared distributions."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from drawn_faces import draw_face
from numpy.typing import NDArray
from sharpstudent.config.keys import build_file_model
from sharpstudent.config.load import validate_keys
from sharpstudent.config.resolve import resolve
from sharpstudent.config.run_config import RunConfig
from sharpstudent.config.stored import compare_configs
from sharpstudent.core.errors import UserError
from sharpstudent.modalities.faces import corruptions, operations, sample
from sharpstudent.modalities.faces.augment import augment_pair
from sharpstudent.modalities.faces.crop import compute_box_margins, compute_landmark_box, compute_loose_box, crop
from sharpstudent.modalities.faces.landmarks import flip_box, flip_landmarks
from sharpstudent.modalities.faces.operations import PairScene, Step, apply_steps
from sharpstudent.modalities.faces.sample import make_pair, make_single
from sharpstudent.modalities.faces.self_blend import self_blend
from sharpstudent.tasks.deepfake.augmentation import OPERATIONS, VIDEO, build_steps, list_operations
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.task import DeepfakeTask

BOX = np.array([30.0, 40, 90, 110], np.float32)
DRAWS = 600


def build_step(op: str, **settings: Any) -> Step:
    """An operation that is always applied, with its declared defaults where none are given."""
    if op == "downscale":
        settings = {"side": (32, 48), **settings}  # the faces here are smaller than the default
    model = OPERATIONS[op](**settings)
    return Step(op, 1.0, model.model_dump(exclude={"op", "p"}))


def make_scene(*pictures: NDArray[np.uint8], box: NDArray[np.float32] = BOX) -> PairScene:
    return PairScene([picture.copy() for picture in pictures], np.zeros(pictures[0].shape[:2], np.float32), box.copy())


def draw_numbers(
    op: str, measure: Callable[[PairScene], Any], picture: NDArray[np.uint8], **settings: Any
) -> NDArray[Any]:
    """Measure what many draws of an operation did to a picture."""
    rng, found = np.random.default_rng(11), []
    for _ in range(DRAWS):
        scene = make_scene(picture)
        apply_steps(scene, [build_step(op, **settings)], rng)
        found.append(measure(scene))
    return np.array(found)


def check_uniform(values: NDArray[Any], low: float, high: float, *, rounding: float = 0.0) -> None:
    """Mean and deviation are those of a uniform distribution within four standard errors, and the ends are nearly met.

    rounding: how far a measured value may lie from the one that was drawn.
    """
    width, deviation = high - low, (high - low) / math.sqrt(12)
    assert low - rounding <= values.min() <= low + 0.02 * width + rounding
    assert high - 0.02 * width - rounding <= values.max() <= high + rounding
    assert abs(values.mean() - (low + high) / 2) <= 4 * deviation / math.sqrt(len(values)) + rounding
    assert abs(values.std() - deviation) <= 0.07 * deviation + rounding


@pytest.fixture(scope="module")
def face() -> NDArray[np.uint8]:
    return draw_face(3, 140)[0]


# --- Real and fake are treated alike --------------------------------------------------------------------------------


def test_every_declared_operation_is_carried_out_and_the_other_way_round() -> None:
    assert list(OPERATIONS) == list(operations.OPERATIONS)


@pytest.mark.parametrize("op", OPERATIONS)
def test_equal_pictures_stay_equal_under_every_operation(op: str, face: NDArray[np.uint8]) -> None:
    changed = 0
    for seed in range(12):
        scene = make_scene(face, face)
        apply_steps(scene, [build_step(op)], np.random.default_rng(seed))
        real, fake = scene.pictures
        np.testing.assert_array_equal(real, fake)
        assert scene.mask is not None
        assert scene.mask.shape == real.shape[:2]
        changed += not np.array_equal(real, face) or not np.array_equal(scene.margins, make_scene(face).margins)
    assert changed >= 6


@pytest.mark.parametrize("op", OPERATIONS)
def test_a_picture_is_changed_as_it_is_alone(op: str, face: NDArray[np.uint8]) -> None:
    """What an operation draws does not depend on what the other picture of the pair shows."""
    alone, beside = make_scene(face), make_scene(face, 255 - face)
    for scene in (alone, beside):
        apply_steps(scene, [build_step(op)], np.random.default_rng(5))
    np.testing.assert_array_equal(alone.pictures[0], beside.pictures[0])
    assert alone.applied == beside.applied


def test_a_pair_without_a_blend_stays_equal_under_the_whole_of_video(monkeypatch: pytest.MonkeyPatch) -> None:
    image, landmarks = draw_face(1, 200)
    monkeypatch.setattr(
        sample,
        "self_blend",
        lambda image, landmarks, rng, form: (image, image.copy(), np.zeros(image.shape[:2], np.float32)),
    )
    steps = build_steps("video")
    seen: set[str] = set()
    for seed in range(40):
        pair = make_pair(image, landmarks, np.random.default_rng(seed), 64, train=True, steps=steps)
        np.testing.assert_array_equal(pair.real, pair.fake)
        seen |= {told.split()[0] for told in pair.applied}
    assert seen == set(OPERATIONS)


def test_the_same_generator_gives_the_same_pair_and_an_empty_list_is_no_augmentation() -> None:
    image, landmarks = draw_face(2, 200)
    steps = build_steps("video")

    def make(seed: int, *, train: bool, steps: Any = steps) -> bytes:
        pair = make_pair(image, landmarks, np.random.default_rng(seed), 48, train=train, steps=steps)
        return pair.real.tobytes() + pair.fake.tobytes() + pair.mask.tobytes()

    assert make(1, train=True) == make(1, train=True) != make(2, train=True)
    assert make(1, train=True, steps=()) == make(1, train=False, steps=None)


# --- sbi is what it was ---------------------------------------------------------------------------------------------


def test_sbi_is_flip_loose_crop_blend_augmentation_and_final_crop_bit_for_bit() -> None:
    for seed in range(12):
        image, landmarks = draw_face(seed, 150)
        pair = make_pair(image, landmarks, np.random.default_rng(seed), 64, train=True)
        rng, box = np.random.default_rng(seed), compute_landmark_box(landmarks)
        if rng.random() < 0.5:
            image, landmarks, box = image[:, ::-1], flip_landmarks(landmarks, 150), flip_box(box, 150)
        loose = crop(image, compute_loose_box(landmarks, 150, 150), landmarks=landmarks, boxes=box[None])
        real, fake, _ = self_blend(np.ascontiguousarray(loose.image), loose.landmarks, rng)
        real, fake = augment_pair(real, fake, rng)
        left, top, right, bottom = compute_box_margins(loose.boxes[0], *real.shape[:2], rng)
        for found, wanted in ((pair.real, real), (pair.fake, fake)):
            np.testing.assert_array_equal(found, cv2.resize(wanted[top:bottom, left:right], (64, 64)))


# Means of the real face, the fake, one labelled face, and the mask, from before the key `augmentation` existed. Another
# processor may round single pixels otherwise.
GOLDEN = (
    (95.750, 91.317, 102.102, 0.4987),
    (150.986, 151.288, 146.220, 0.0754),
    (170.489, 163.375, 139.228, 0.5194),
    (128.175, 131.029, 75.306, 0.2419),
)


def test_sbi_gives_the_pictures_that_it_gave_before_there_was_a_choice() -> None:
    for seed, wanted in enumerate(GOLDEN):
        image, landmarks = draw_face(seed, 160 + seed)
        box = compute_landmark_box(landmarks)
        points, boxes = landmarks if seed % 2 else landmarks[:68], None if seed % 3 else [box]
        pair = make_pair(image, points, np.random.default_rng(seed), 64, train=True, boxes=boxes)
        single = make_single(image, box if seed % 4 else None, np.random.default_rng(seed), 64, train=True)
        found = [float(picture.mean()) for picture in (pair.real, pair.fake, single, pair.mask)]
        np.testing.assert_allclose(found, wanted, atol=0.01)


# --- Distributions --------------------------------------------------------------------------------------------------


def test_an_operation_is_applied_as_often_as_its_probability_says(face: NDArray[np.uint8]) -> None:
    rng, counts = np.random.default_rng(0), {"grey": 0, "gamma": 0}
    steps = [Step("grey", 0.2, {}), Step("gamma", 0.7, {"exponent": (2, 2)})]
    for _ in range(1000):
        scene = make_scene(face[:4, :4])
        apply_steps(scene, steps, rng)
        for told in scene.applied:
            counts[told.split()[0]] += 1
    assert abs(counts["grey"] - 200) < 4 * math.sqrt(160)
    assert abs(counts["gamma"] - 700) < 4 * math.sqrt(210)


def test_flip_mirrors_pictures_mask_and_box_and_twice_gives_the_input_back(face: NDArray[np.uint8]) -> None:
    scene = make_scene(face)
    scene.mask, scene.margins = np.random.default_rng(0).random((140, 140), np.float32), np.array([0.1, 0.2, 0.3, 0.4])
    before = (scene.mask, scene.box)
    flip = build_step("flip")
    apply_steps(scene, [flip], np.random.default_rng(0))
    np.testing.assert_array_equal(scene.pictures[0], face[:, ::-1])
    np.testing.assert_array_equal(scene.mask, before[0][:, ::-1])
    np.testing.assert_array_equal(scene.box, [139 - 90, 40, 139 - 30, 110])
    np.testing.assert_array_equal(scene.margins, [0.3, 0.2, 0.1, 0.4])
    apply_steps(scene, [flip], np.random.default_rng(0))
    np.testing.assert_array_equal(scene.pictures[0], face)
    np.testing.assert_array_equal(scene.box, before[1])


def test_crop_jitter_draws_each_edge_apart_and_the_final_crop_follows(face: NDArray[np.uint8]) -> None:
    margins = draw_numbers("crop_jitter", lambda scene: scene.margins, face, margin=(-0.1, 0.3))
    for edge in range(4):
        check_uniform(margins[:, edge], -0.1, 0.3)
    assert np.abs(np.corrcoef(margins.T) - np.eye(4)).max() < 0.17
    scene = make_scene(face)
    scene.margins = np.array([0.1, 0.2, -0.1, 0.0])
    np.testing.assert_array_equal(scene.find_final_box(), [24, 26, 84, 110])


def test_rgb_shift_adds_a_uniform_number_to_each_channel_apart() -> None:
    grey = np.full((2, 2, 3), 128, np.uint8)
    shifts = draw_numbers("rgb_shift", lambda scene: scene.pictures[0][0, 0].astype(float) - 128, grey, levels=20)
    for channel in range(3):
        check_uniform(shifts[:, channel], -20, 20, rounding=0.5)
    assert np.abs(np.corrcoef(shifts.T) - np.eye(3)).max() < 0.17


def test_a_third_of_a_turn_of_hue_permutes_the_channels_and_no_saturation_is_the_mean() -> None:
    colour = np.array([200.0, 90, 10])
    np.testing.assert_allclose(operations.compute_colour_matrix(120, 1) @ colour, [10, 200, 90], atol=1e-9)
    np.testing.assert_allclose(operations.compute_colour_matrix(77, 0) @ colour, [100, 100, 100], atol=1e-9)
    np.testing.assert_allclose(operations.compute_colour_matrix(0, 1), np.eye(3), atol=1e-12)
    matrix = operations.compute_colour_matrix(33, 1.7)
    np.testing.assert_allclose(matrix @ np.full(3, 55.0), 55)
    assert (matrix @ colour).mean() == pytest.approx(100)
    assert np.linalg.norm(matrix @ colour - 100) == pytest.approx(1.7 * np.linalg.norm(colour - 100))


@pytest.mark.parametrize(
    ("op", "called", "settings", "ends"),
    [
        ("hue_saturation", "compute_colour_matrix", {"hue": 8, "saturation": (0.5, 1.5)}, [(-8, 8), (0.5, 1.5)]),
        ("blur", "blur", {"sigma": (0.01, 0.03)}, [None, (0.01, 0.03)]),
        ("motion_blur", "draw_motion", {"length": (0.1, 0.2)}, [(6.4807, 12.9615), (0, math.pi)]),
        ("noise", "add_sensor_noise", {"sigma": (2, 9)}, [None, (2, 9)]),
    ],
)
def test_the_numbers_of_an_operation_are_uniform_between_their_ends(
    op: str, called: str, settings: Any, ends: Any, face: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    real = getattr(operations, called)
    monkeypatch.setattr(operations, called, lambda *given: calls.append(given) or real(*given))
    picture = face[::2, ::2].copy()  # 70 px; its box has the area of a square of 64.8 px
    draw_numbers(op, lambda scene: None, picture, **settings)
    scale = {"blur": math.sqrt(60 * 70) / 70}.get(op, 1.0)  # blur takes shares of the picture
    for place, pair in enumerate(ends):
        if pair is not None:
            values = np.array([float(given[place]) for given in calls]) / scale
            check_uniform(values, *pair)


def test_brightness_and_contrast_are_a_line_with_uniform_slope_and_offset() -> None:
    two = np.array([[[100] * 3, [140] * 3]], np.uint8)
    settings = {"brightness": 0.1, "contrast": 0.5}
    levels = draw_numbers(
        "brightness_contrast", lambda scene: scene.pictures[0][0, :, 0].astype(float), two, **settings
    )
    slopes = (levels[:, 1] - levels[:, 0]) / 40
    check_uniform(slopes, 0.5, 1.5, rounding=1 / 40)
    check_uniform((levels.mean(axis=1) - 120 * slopes) / 255, -0.1, 0.1, rounding=0.02)


def test_gamma_is_a_power_whose_logarithm_is_uniform() -> None:
    grey = np.full((1, 1, 3), 64, np.uint8)
    levels = draw_numbers("gamma", lambda scene: float(scene.pictures[0][0, 0, 0]), grey, exponent=(0.5, 2))
    powers = np.log(levels / 255) / np.log(64 / 255)
    check_uniform(np.log(powers), math.log(0.5), math.log(2), rounding=0.03)


def test_grey_has_three_equal_channels_of_the_luma(face: NDArray[np.uint8]) -> None:
    scene = make_scene(face)
    apply_steps(scene, [build_step("grey")], np.random.default_rng(0))
    luma = face.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(scene.pictures[0] - luma[..., None]).max() <= 1


def test_the_kernel_of_a_motion_has_the_moments_of_a_line() -> None:
    """A line of length L at angle a has variance L^2 / 12 along it and 0 across; pixels add at most 1/6 to each."""
    for length, angle in ((20, 0.0), (20, 0.7), (31.5, 2.2)):
        kernel = operations.draw_motion(length, angle)
        reach = kernel.shape[0] // 2
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        along, across = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        assert (kernel * along).sum() == pytest.approx(0, abs=1e-4)
        assert (kernel * along**2).sum() == pytest.approx(length**2 / 12, abs=0.03 * length**2 / 12 + 1 / 6)
        assert (kernel * across**2).sum() <= 0.26


def test_noise_has_its_deviation_at_mid_grey_and_grows_with_the_light() -> None:
    unit = np.random.default_rng(0).standard_normal((200, 200, 3), dtype=np.float32)
    for level in (60, 128, 190):
        noisy = corruptions.add_sensor_noise(np.full((200, 200, 3), level, np.uint8), 8, unit).astype(float)
        assert noisy.var() == pytest.approx(64 * (1 + level / 128) / 2 + 1 / 12, rel=0.02)
        assert noisy.mean() == pytest.approx(level, abs=0.15)


def test_downscale_brings_the_faces_box_to_a_drawn_side_and_leaves_a_small_face_alone(face: NDArray[np.uint8]) -> None:
    large = cv2.resize(face, (560, 560), interpolation=cv2.INTER_NEAREST)
    big = make_scene(np.asarray(large, np.uint8), box=4 * BOX)  # a side of 259 px
    sides = []
    rng = np.random.default_rng(3)
    for _ in range(150):
        scene = PairScene([big.pictures[0]], None, big.box)
        apply_steps(scene, [build_step("downscale", side=(64, 256))], rng)
        sides.append(scene.side)
        assert scene.box is not None
        np.testing.assert_allclose(scene.box / scene.size[0], 4 * BOX / 560, atol=1e-6)
    logs = np.log2(sides)
    assert 6 - 0.02 <= logs.min() <= 6.1
    assert 7.9 <= logs.max() <= 8.02
    assert abs(logs.mean() - 7) < 4 * (2 / math.sqrt(12)) / math.sqrt(150)
    small = make_scene(face)
    apply_steps(small, [build_step("downscale", side=(64.9, 256))], rng)
    np.testing.assert_array_equal(small.pictures[0], face)
    apply_steps(small, [build_step("downscale", side=(32, 32), back=True)], rng)
    assert small.size == (140, 140)


@pytest.mark.parametrize(
    ("op", "function", "settings", "ends"),
    [
        ("jpeg", "compress_jpeg", {"quality": (40, 45)}, (40, 45)),
        ("h264", "recompress_h264", {"crf": (20, 25)}, (20, 25)),
        ("social_media", "share_online", {"passes": (1, 3)}, (1, 3)),
    ],
)
def test_whole_numbers_are_equally_likely_both_ends_among_them(
    op: str, function: str, settings: Any, ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(operations, function, lambda picture, number: drawn.append(number) or picture)
    draw_numbers(op, lambda scene: None, np.zeros((2, 2, 3), np.uint8), **settings)
    counts = np.bincount(drawn)[ends[0] :]
    share = 1 / (ends[1] - ends[0] + 1)
    assert len(counts) == ends[1] - ends[0] + 1
    assert np.abs(counts - DRAWS * share).max() < 4 * math.sqrt(DRAWS * share * (1 - share))


def test_compression_is_that_of_the_corruptions_that_evaluation_measures(face: NDArray[np.uint8]) -> None:
    for op, settings, function, number in (
        ("jpeg", {"quality": (50, 50)}, corruptions.compress_jpeg, 50),
        ("h264", {"crf": (28, 28)}, corruptions.recompress_h264, 28),
        ("social_media", {"passes": (2, 2)}, corruptions.share_online, 2),
    ):
        scene = make_scene(face)
        apply_steps(scene, [build_step(op, **settings)], np.random.default_rng(0))
        np.testing.assert_array_equal(scene.pictures[0], function(face, number))


def test_occlusion_covers_the_drawn_share_of_the_box_with_one_colour_and_hides_the_mask() -> None:
    blank = np.zeros((400, 400, 3), np.uint8)
    box = np.array([140.0, 130, 260, 270], np.float32)  # far inside, so that nothing is cut off
    rng, shares = np.random.default_rng(1), []
    for _ in range(120):
        scene = PairScene([blank], np.ones((400, 400), np.float32), box)
        apply_steps(scene, [build_step("occlusion", area=(0.1, 0.3))], rng)
        covered = scene.mask == 0
        inside = scene.pictures[0][covered]
        np.testing.assert_array_equal(inside, np.broadcast_to(inside[0], inside.shape))
        assert not scene.pictures[0][~covered].any()
        shares.append(covered.sum() / (120 * 140))
    check_uniform(np.array(shares), 0.1, 0.3, rounding=0.012)


def test_operations_act_in_the_order_of_the_list(face: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(operations, "compress_jpeg", lambda picture, _: sizes.append(len(picture)) or picture)
    down, jpeg = build_step("downscale", side=(32, 32)), build_step("jpeg")
    for steps in ((down, jpeg), (jpeg, down)):
        apply_steps(make_scene(face), steps, np.random.default_rng(0))
    assert sizes == [round(140 * 32 / math.sqrt(60 * 70)), 140]


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("end", ["minimum", "maximum"])
def test_every_operation_takes_the_ends_of_its_ranges_and_tiny_pictures(op: str, end: str) -> None:
    settings: dict[str, Any] = {}
    for name, found in OPERATIONS[op].model_json_schema()["properties"].items():
        if "prefixItems" in found:
            settings[name] = (found["prefixItems"][0][end],) * 2
        elif name not in ("op", "p"):
            settings[name] = found.get(end, end == "maximum")
    steps = build_steps([OPERATIONS[op](p=1, **settings)])
    for shape in ((120, 120), (1, 1), (5, 3), (12, 40)):
        image, landmarks = draw_face(1, 120)
        image = np.ascontiguousarray(image[: shape[0], : shape[1]])
        pair = make_pair(image, landmarks % min(shape), np.random.default_rng(0), 32, train=True, steps=steps)
        assert pair.real.shape == pair.fake.shape == (32, 32, 3)
        assert pair.mask.shape == (32, 32)


def test_what_an_operation_draws_depends_neither_on_the_others_nor_on_the_size(face: NDArray[np.uint8]) -> None:
    jpeg = build_step("jpeg")

    def draw(picture: NDArray[np.uint8], *steps: Step) -> str:
        scene = make_scene(picture)
        apply_steps(scene, [*steps, jpeg], np.random.default_rng(4))
        return scene.applied[-1]

    wide, narrow = build_step("noise", sigma=(0, 50)), build_step("noise", sigma=(3, 3))
    assert draw(face, wide) == draw(face, narrow) == draw(face[:70], wide) == draw(face, Step("grey", 0.0, {}))


def test_a_labelled_face_gets_the_same_operations_with_and_without_a_box() -> None:
    image, landmarks = draw_face(4, 220)
    steps = build_steps([OPERATIONS["flip"](p=1), OPERATIONS["gamma"](p=1, exponent=(2, 2))])
    box = compute_landmark_box(landmarks)
    darker = np.rint(255 * (image / 255) ** 2).astype(np.uint8)[:, ::-1]
    for given in (box, None):
        found = make_single(image, given, np.random.default_rng(0), 80, train=True, steps=steps)
        flipped = None if given is None else flip_box(given, 220)
        wanted = make_single(np.ascontiguousarray(darker), flipped, np.random.default_rng(0), 80, train=False)
        assert np.abs(found.astype(int) - wanted).max() <= 1


# --- The key --------------------------------------------------------------------------------------------------------


def read(value: Any) -> Any:
    return validate_keys({"augmentation": value}, DeepfakeTask)


def test_the_default_is_sbi_and_leaves_no_trace_in_the_resolved_config() -> None:
    assert DeepfakeSection().augmentation == "sbi"
    assert "augmentation" not in DeepfakeSection().model_dump()
    assert build_steps("sbi") is None
    assert DeepfakeSection(augmentation="video").model_dump()["augmentation"] == "video"


def test_video_is_a_list_of_the_declared_operations() -> None:
    found = list_operations("video")
    assert found is not None
    assert {one.op for one in found} == set(OPERATIONS)
    assert [step.name for step in build_steps("video") or ()] == [one.op for one in found]


def test_the_document_shows_the_list_that_video_stands_for() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    shown = page.partition('"augmentation": ')[2].partition("```")[0]
    assert json.loads(shown) == [*VIDEO]


def test_a_list_keeps_order_and_parameters_through_the_resolved_config() -> None:
    given = [{"op": "jpeg", "p": 0.5, "quality": [50, 90]}, {"op": "flip"}, {"op": "jpeg"}]
    section = DeepfakeSection(augmentation=read(given).augmentation)
    steps = build_steps(section.augmentation)
    assert steps is not None
    assert [(step.name, step.p) for step in steps] == [("jpeg", 0.5), ("flip", 0.5), ("jpeg", 0.5)]
    assert steps[0].settings == {"quality": (50, 90)}
    again = DeepfakeSection.model_validate_json(section.model_dump_json())
    assert again == section


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("vidoe", ['did you mean "augmentation": "video"']),
        ([{"op": "jpg"}], ["augmentation[0].op", "is not a known op", 'did you mean "op": "jpeg"']),
        ([{"op": "flip"}, {}], ["augmentation[1].op", "is missing"]),
        ([{"op": "jpeg", "qualty": [1, 2]}], ['did you mean "augmentation[0].quality"']),
        ([{"op": "jpeg", "quality": [90, 40]}], ["augmentation[0].quality", "begins above its end", "write [40, 90]"]),
        ([{"op": "jpeg", "quality": [0, 40]}], ["augmentation[0].quality[0]", "out of range", "at least 1"]),
        ([{"op": "flip", "p": 2}], ["augmentation[0].p", "at most 1"]),
        ({"op": "flip"}, ["augmentation", "a list in brackets"]),
    ],
)
def test_a_mistake_is_named_with_its_place_and_a_remedy(value: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read(value)
    for word in words:
        assert word in caught.value.as_text()


def test_the_schema_describes_every_operation_and_parameter() -> None:
    schema = build_file_model(DeepfakeTask).model_json_schema()
    for model in OPERATIONS.values():
        properties = schema["$defs"][model.__name__]["properties"]
        assert all("description" in found and "default" in found for found in properties.values())


def test_h264_is_refused_before_faces_are_looked_for_where_its_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corruptions, "explain_no_h264", lambda: "H.264 recompression needs the package av: pip ...")
    section = DeepfakeSection(data_source="photos", data_root=str(tmp_path / "absent"), augmentation="video")
    with pytest.raises(UserError) as caught:
        DeepfakeTask(section).open_data("train", "validation")
    assert [problem.where for problem in caught.value.problems] == ["augmentation"]
    assert "h264" in caught.value.as_text()
    with pytest.raises(UserError) as caught:  # validation is not augmented, and asks for nothing
        DeepfakeTask(section).open_data("validation")
    assert "absent" in caught.value.as_text()


def test_reading_the_key_loads_no_opencv() -> None:
    code = "import sharpstudent.tasks.deepfake.task, sys; sys.exit('cv2' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ)).returncode == 0


def test_a_run_is_not_resumed_with_another_augmentation_unless_that_is_permitted() -> None:
    def resolve_with(**keys: Any) -> RunConfig:
        given = validate_keys({"teacher_weights": "t.pth", **keys}, DeepfakeTask)
        return resolve(given, stage=1, name="n", config_name="c", task=DeepfakeTask)

    old, video = resolve_with(), resolve_with(augmentation="video")
    assert compare_configs(old, resolve_with(augmentation="sbi")) == []
    assert compare_configs(old, video) == ['task_section.augmentation: nothing -> "video"']
    one, other = (resolve_with(augmentation=[{"op": "gamma", "exponent": [1, end]}]) for end in (2, 3))
    assert len(compare_configs(one, other)) == 1
