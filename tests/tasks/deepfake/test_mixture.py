"""Fakes of several kinds by shares: what each is made of, who is blended with whom, and what validation sees."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from drawn_faces import draw_face
from prepared_set import SetFace, write_set
from sharpstudent.config.load import validate_keys
from sharpstudent.core.errors import UserError
from sharpstudent.core.random import build_generator
from sharpstudent.modalities.faces.blend_other import NearestFaces, blend_other, place_face
from sharpstudent.modalities.faces.self_blend import OWN_FORM, PUBLISHED_FORM, draw_blend, draw_hull
from sharpstudent.modalities.faces.swap.colour import is_grey
from sharpstudent.modalities.faces.swap.match import normalise_points
from sharpstudent.tasks.deepfake import mixture
from sharpstudent.tasks.deepfake.augmentation import build_steps
from sharpstudent.tasks.deepfake.mixture import MixedPairs, Partners
from sharpstudent.tasks.deepfake.samples import BlendedPairs, LabelledFaces
from sharpstudent.tasks.deepfake.section import DeepfakeSection, FakeShares, check_fakes
from sharpstudent.tasks.deepfake.sources.face import Face, LoadedFace
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from workplace import STAGE_1, Workplace

SIZE = 48


def make_face(seed: int, *, points: int = 81, label: int = 0, side: int = 120) -> Face:
    image, landmarks = draw_face(seed, side)
    loaded = LoadedFace(image, landmarks[:points])
    return Face(f"face {seed}", f"clip {seed}", f"person {seed}", label, lambda: loaded)


FACES = [make_face(seed) for seed in range(10)]


def mix(faces: Any = FACES, *, train: bool = True, steps: Any = None, fakes: Any = (), **shares: float) -> MixedPairs:
    return MixedPairs(faces, shares=shares, fakes=fakes, image_size=SIZE, train=train, steps=steps)


# --- The published form ---------------------------------------------------------------------------------------------


def test_the_published_form_scales_both_axes_apart_and_the_own_one_alike() -> None:
    landmarks = draw_face(0, 120)[1]
    factors = {
        form: np.array(
            [draw_blend(120, 120, landmarks, np.random.default_rng(i), form).matrix.diagonal() for i in range(300)]
        )
        for form in (OWN_FORM, PUBLISHED_FORM)
    }
    own, published = factors[OWN_FORM], factors[PUBLISHED_FORM]
    np.testing.assert_array_equal(own[:, 0], own[:, 1])
    assert abs(np.corrcoef(published.T)[0, 1]) < 4 / math.sqrt(300)
    low, high = 0.95, 1 / 0.95
    for values in (own[:, 0], *published.T):
        assert low <= values.min() < low + 0.003
        assert high - 0.003 < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * 300)


def test_only_the_components_are_larger_in_the_published_form() -> None:
    for seed in range(5):
        landmarks = draw_face(seed, 240)[1]
        areas = {
            kind: [
                (draw_hull(kind, landmarks, 240, 240, dilation=form.dilation) > 0).mean()
                for form in (OWN_FORM, PUBLISHED_FORM)
            ]
            for kind in ("full", "extended", "components", "parts")
        }
        own, published = areas.pop("components")
        assert 1.3 < published / own < 1.7
        assert all(one == other for one, other in areas.values())


# --- Two people -----------------------------------------------------------------------------------------------------


def test_a_face_is_brought_into_place_by_the_affine_map_between_landmarks() -> None:
    image, landmarks = draw_face(1, 200)
    matrix = np.array([[0.8, 0.1, 20.0], [-0.05, 0.9, 15.0]])
    moved = (landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    wanted = cv2.warpAffine(image, matrix, (200, 200), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    found = place_face(image, landmarks, moved, 200, 200)
    assert np.abs(found.astype(int) - wanted).max() <= 2
    half = (landmarks + 0.5) / 2 - 0.5  # halved: scaled down by area means first
    small = place_face(image, landmarks, half.astype(np.float32), 100, 100)
    assert np.abs(small.astype(int) - cv2.resize(image, (100, 100), interpolation=cv2.INTER_AREA)).max() <= 2


def test_a_blend_keeps_the_picture_outside_its_mask_and_takes_the_other_face_inside() -> None:
    (image, landmarks), (other, points) = draw_face(2, 200), draw_face(3, 200)
    differing = 0
    for seed in range(12):
        real, fake, share = blend_other(image, landmarks, other, points, np.random.default_rng(seed))
        assert real is image
        np.testing.assert_array_equal(fake[share == 0], image[share == 0])
        assert share.max() == pytest.approx(1, abs=1e-3)
        differing += float(np.abs(fake[share > 0.9].astype(int) - image[share > 0.9]).mean()) > 3
    assert differing == 12


def test_landmarks_on_a_line_are_refused() -> None:
    image, landmarks = draw_face(2, 100)
    line = np.stack([np.arange(81.0), np.arange(81.0)], axis=1)
    for one, other in ((landmarks, line), (line, landmarks), (landmarks, np.full((81, 2), np.nan))):
        with pytest.raises(ValueError, match="landmarks"):
            blend_other(image, one, image, other, np.random.default_rng(0))


def test_the_nearest_are_other_people_in_the_order_of_their_distance() -> None:
    points = [draw_face(seed, 200)[1] for seed in range(30)]
    people = [f"person {seed // 2}" for seed in range(30)]
    table = NearestFaces(list(points), people)
    target = points[7] * 1.7 + np.float32(30)  # size and place do not count
    found = table.find(target, "person 3", 8).tolist()
    wanted = normalise_points(points[7][:68])
    distances = {
        place: float(np.square(normalise_points(one[:68]) - wanted).sum())
        for place, one in enumerate(points)
        if people[place] != "person 3"
    }
    assert found == sorted(distances, key=lambda place: distances[place])[:8]
    assert table.find(target, "nobody", 1).tolist() == [7]
    assert len(NearestFaces(points[:4], people[:4]).find(target, "person 0", 8)) == 2


def test_partners_are_other_people_of_the_same_faces() -> None:
    partners = Partners(FACES)
    drawn = Counter(
        face.identity
        for seed in range(60)
        for face in partners.choose(FACES[0].read_points(), "person 0", np.random.default_rng(seed))
    )
    assert "person 0" not in drawn
    assert len(drawn) == mixture.NEAREST
    assert sum(drawn.values()) == 60 * mixture.NEAREST


def test_a_grey_face_is_blended_into_grey_pictures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_grey(face: Face) -> LoadedFace:
        loaded = face.load()
        return replace(loaded, image=np.repeat(loaded.image.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1))

    def note(image: Any, landmarks: Any, other: Any, *rest: Any, **more: Any) -> Any:
        met[is_grey(image), is_grey(other)] += 1
        return blend_other(image, landmarks, other, rest[0], np.random.default_rng(0))

    met: Counter[tuple[bool, bool]] = Counter()
    for name in ("blend_other", "swap_faces"):
        monkeypatch.setattr(mixture, name, note)
    greys = [replace(face, identity=f"grey {face.identity}", load=partial(load_grey, face)) for face in FACES]
    for kind in ("blend_other", "swap"):
        samples = mix([*FACES, *greys], **{kind: 1.0})
        for index in range(40):
            samples.make_mixed(index, np.random.default_rng(index))
    assert met[False, True] == 0
    assert min(met[False, False], met[True, True], met[True, False]) > 0


def test_one_person_cannot_be_blended_with_anybody() -> None:
    alone = [replace(face, identity="anna") for face in FACES]
    with pytest.raises(UserError, match="faces of two people"):
        mix(alone, blend_other=1.0)
    assert len(mix(alone, self_blend=1.0)) == 10


# --- Samples --------------------------------------------------------------------------------------------------------


def test_kinds_come_as_often_as_their_shares() -> None:
    samples = mix(self_blend=0.5, sbi_published=0.1, blend_other=0.25, swap=0.15)
    count = 200
    made = Counter(samples.make_mixed(i % 10, build_generator(0, 1 + i // 10, i % 10)).kind for i in range(count))
    # A swap that no partner fits becomes a blend of two people.
    for kinds, share in ((("self_blend",), 0.5), (("sbi_published",), 0.1), (("blend_other", "swap"), 0.4)):
        assert abs(sum(made[kind] for kind in kinds) - share * count) < 4 * math.sqrt(count * share * (1 - share))


@pytest.mark.parametrize("kind", ["self_blend", "sbi_published", "blend_other", "swap"])
@pytest.mark.parametrize("steps", [None, "video"])
def test_a_sample_repeats_and_is_equal_where_nothing_is_blended(kind: str, steps: Any) -> None:
    samples = mix(steps=None if steps is None else build_steps([]), **{kind: 1.0})
    one, same, other = (samples.make(1, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one.inputs["image"].tobytes() == same.inputs["image"].tobytes() != other.inputs["image"].tobytes()
    outside = cv2.dilate(one.rows["mask"][1], np.ones((9, 9))) == 0
    if steps is not None:  # JPEG of the published augmentation reaches a little further
        np.testing.assert_array_equal(one.inputs["image"][0][outside], one.inputs["image"][1][outside])
    assert one.targets["label"].tolist() == [0, 1]
    assert one.rows["manipulation"][0] == ""


def test_a_real_face_beside_a_blend_of_two_people_is_the_picture_itself() -> None:
    sample = mix(train=False, blend_other=1.0).make(2, np.random.default_rng(0))
    alone = LabelledFaces([replace(FACES[2], load=lambda: box_of(FACES[2]))], image_size=SIZE, train=False)
    wanted = alone.make(0, np.random.default_rng(0)).inputs["image"][0]
    assert np.abs(sample.inputs["image"][0].astype(int) - wanted).max() <= 3  # another crop of the same pixels


def box_of(face: Face) -> LoadedFace:
    from sharpstudent.modalities.faces.crop import compute_landmark_box

    loaded = face.read()
    assert loaded.landmarks is not None
    return replace(loaded, boxes=compute_landmark_box(loaded.landmarks)[None])


def test_what_no_partner_fits_is_made_of_the_next_kind_and_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [make_face(seed, points=68) for seed in range(4)]  # a swap takes the forehead's points
    rows = mix(few, swap=1.0).make(0, np.random.default_rng(0)).rows
    assert rows["manipulation"] == ("", "blend of two people")

    def refuse(*_: Any) -> Any:
        raise ValueError("no")

    monkeypatch.setattr(mixture, "blend_other", refuse)
    assert mix(few, swap=1.0).make(0, np.random.default_rng(0)).rows["manipulation"] == ("", "self-blend")


def test_a_labelled_fake_gets_the_draws_of_the_real_face_beside_it() -> None:
    steps = build_steps("video")
    twin = replace(FACES[0], name="twin", identity="somebody", clip_id="elsewhere", label=1)
    samples = mix(FACES[:1], fakes=[twin], steps=steps, labels=1.0)
    for seed in range(8):
        sample = samples.make(0, np.random.default_rng(seed))
        real, fake = sample.inputs["image"]
        np.testing.assert_array_equal(real, fake)
    assert sample.rows["group"] == ("person 0", "somebody")
    assert sample.rows["clip"] == ("clip 0", "elsewhere")
    assert sample.rows["id"] == ("face 0#real", "twin#fake")
    assert sample.rows["manipulation"] == ("", "fake")
    larger = make_face(0, label=1, side=300)
    told = mix(FACES[:1], fakes=[larger], steps=steps, labels=1.0).make_mixed(0, np.random.default_rng(1))
    assert told.fake is larger


def test_validation_makes_the_same_pairs_each_time_and_counts_a_real_face_once() -> None:
    samples = MixedPairs(
        FACES[:4], shares={"self_blend": 0.5, "blend_other": 0.5}, image_size=SIZE, train=False, times=2
    )
    first, again = ([samples.make(i, build_generator(0, 0, i)) for i in range(8)] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.inputs["image"], other.inputs["image"])
    assert [len(sample.rows["id"]) for sample in first] == [2] * 4 + [1] * 4
    assert first[5].rows["manipulation"][0] != ""


# --- The keys -------------------------------------------------------------------------------------------------------


def test_shares_are_divided_by_their_sum_and_none_above_zero_is_refused() -> None:
    assert FakeShares(self_blend=0.6, swap=0.3).list_shares() == pytest.approx({"self_blend": 2 / 3, "swap": 1 / 3})
    for value, words in (
        ({}, "has no share above 0"),
        ({"self_blend": 0}, "has no share above 0"),
        ({"selfblend": 1}, 'did you mean "fakes.self_blend"'),
        ({"swap": 2}, "at most 1"),
        ("blends", 'did you mean "fakes": "blend"'),
    ):
        with pytest.raises(UserError) as caught:
            validate_keys({"fakes": value}, DeepfakeTask)
        assert words in caught.value.as_text()


def test_a_source_that_cannot_give_the_fakes_is_named_at_the_key(tmp_path: Path) -> None:
    shares = FakeShares(self_blend=0.5, labels=0.5)
    for keys, key in (
        ({"data_source": "photos", "fakes": shares}, "fakes"),
        ({"data_source": "ffpp", "validation_fakes": shares}, "validation_fakes"),
        ({"data_source": "labelled", "fakes": FakeShares(self_blend=1)}, "fakes"),
        ({"data_source": "labelled", "validation_fakes": "blend"}, "validation_fakes"),
    ):
        with pytest.raises(UserError) as caught:
            DeepfakeTask(DeepfakeSection(data_root=str(tmp_path), **keys)).open_data("train", "validation")
        assert [problem.where for problem in caught.value.problems] == [key]


def test_what_labelled_pictures_are_told_to_set_makes_a_config_with_a_mixture_fit_them(tmp_path: Path) -> None:
    asked = {"fakes": FakeShares(self_blend=1), "validation_fakes": FakeShares(swap=1)}
    with pytest.raises(UserError) as caught:
        check_fakes(DeepfakeSection(data_root=str(tmp_path), data_source="labelled", **asked))
    words = [str(problem.remedy).partition(";")[0] for problem in caught.value.problems]
    assert words == ["--set fakes=labels", "--set validation_fakes=null"]
    check_fakes(DeepfakeSection(data_root=str(tmp_path), data_source="labelled", fakes="labels", validation_fakes=None))


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    faces = [
        SetFace(*draw_face(i, 100), "train" if i < 14 else "val", i % 2, f"clip {i // 2}", f"person {i // 2}", {})
        for i in range(22)
    ]
    write_set(tmp_path / "set", faces)
    return tmp_path / "set"


def open_set(prepared: Path, **keys: Any) -> tuple[DeepfakeTask, Any, Any]:
    section = DeepfakeSection(data_source="manifest", data_root=str(prepared), image_size=SIZE, **keys)
    task = DeepfakeTask(section)
    return task, *task.open_data("train", "validation")


def test_a_mixture_of_a_prepared_set_pairs_its_real_faces_with_its_fakes_too(prepared: Path) -> None:
    task, train, validation = open_set(prepared, fakes=FakeShares(self_blend=0.3, blend_other=0.3, labels=0.4))
    assert (len(train), len(validation)) == (7, 4)
    assert any("train: fakes: 30% self_blend, 30% blend_other, 40% labels; 7 faces as" in note for note in train.notes)
    kinds = {train.make(i % 7, np.random.default_rng(i)).rows["manipulation"][1] for i in range(40)}
    assert kinds == {"self-blend", "blend of two people", "fake"}
    assert {"blend of two people", "self-blend"} < {*task.facts()["fakes"]}
    people = {name for i in range(40) for name in train.make(i % 7, np.random.default_rng(i)).rows["group"]}
    assert people <= {f"person {number}" for number in range(7)}  # nobody of validation


def test_the_default_is_self_blending_alone_with_the_rows_that_it_had(prepared: Path) -> None:
    task, train, validation = open_set(prepared)
    assert type(train) is type(validation) is BlendedPairs
    assert "manipulation" not in train.make(0, np.random.default_rng(0)).rows
    assert task.facts()["fakes"] == ["self-blend"]
    assert not {"validation_fakes", "validation_augmentation"} & task.section.model_dump().keys()
    assert type(open_set(prepared, fakes="labels")[1]) is LabelledFaces


def test_validation_may_have_other_fakes_and_be_degraded_while_training_stays_as_it_is(prepared: Path) -> None:
    _, plain, _ = open_set(prepared)
    task, train, validation = open_set(
        prepared, validation_fakes=FakeShares(blend_other=1), validation_augmentation="video"
    )
    assert type(train) is BlendedPairs
    one, other = (samples.make(3, np.random.default_rng(1)).inputs["image"] for samples in (plain, train))
    np.testing.assert_array_equal(one, other)
    assert validation.make(0, build_generator(0, 0, 0)).rows["manipulation"] == ("", "blend of two people")
    twice = [validation.make(0, build_generator(0, 0, 0)).inputs["image"].tobytes() for _ in range(2)]
    _, _, clean = open_set(prepared, validation_fakes=FakeShares(blend_other=1))
    assert twice[0] == twice[1] != clean.make(0, build_generator(0, 0, 0)).inputs["image"].tobytes()
    assert task.facts()["fakes"] == ["self-blend"]


def test_validation_may_rest_on_the_labels_of_the_set_alone(prepared: Path) -> None:
    task, train, validation = open_set(prepared, validation_fakes="labels")
    assert (type(train), type(validation)) == (BlendedPairs, LabelledFaces)
    assert (len(train), len(validation)) == (7, 8)
    assert task.name_fakes() == "fake"


@pytest.mark.slow
def test_a_run_trains_on_a_mixture_and_chooses_by_another(prepared: Path) -> None:
    config = """{
      "data_source": "manifest", "data_root": "set", "image_size": 32, "student": "test_efficientnet",
      "student_init": "random", "epoch": 1, "batch_size": 2, "lr": 0.01, "num_workers": 0, "device": "cpu",
      "fakes": {"self_blend": 0.5, "sbi_published": 0.2, "blend_other": 0.3}, "augmentation": "video",
      "validation_fakes": {"self_blend": 0.5, "swap": 0.5}, "validation_augmentation": [{"op": "jpeg", "p": 1}]
    }"""
    (prepared.parent / "mix.json").write_text(config)
    workplace = Workplace(prepared.parent)
    ended = workplace.call(STAGE_1, "mix.json", "-n", "run")
    assert ended.code == 0, ended.err
    assert re.search(r"val_auc", ended.out)
    (run,) = (prepared.parent / "output").iterdir()
    assert "blend of two people" in (run / "report.html").read_text(encoding="utf-8") + ended.out
