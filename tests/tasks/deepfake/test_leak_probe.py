"""The leak probe finds a planted leak, and none in the generator; the statistics are what they are called."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_faces import draw_face
from drawn_sources import write_faces
from sharpstudent import commands
from sharpstudent.core.errors import UserError
from sharpstudent.modalities.faces.corruptions import compress_jpeg
from sharpstudent.modalities.faces.trivia import measure_trivia
from sharpstudent.tasks.deepfake.augmentation import build_steps
from sharpstudent.tasks.deepfake.leak_probe import PUBLISHED_AUC, PairStatistics, measure_pairs, probe_leak, undo_blend
from sharpstudent.tasks.deepfake.samples import BlendedPairs, DrawnSample, LabelledFaces
from sharpstudent.tasks.deepfake.sources.face import Face, LoadedFace
from sharpstudent.tasks.deepfake.sources.photos import find_faces

SIZE, PAIRS = 64, 300
PHOTOS = Path(__file__).resolve().parents[4] / "shared" / "data"


def quiet(_: str) -> None:
    return


class Leaking(BlendedPairs):
    """Pairs whose fakes alone are compressed with JPEG."""

    def draw(self, index: int, rng: np.random.Generator) -> DrawnSample:
        drawing = super().draw(index, rng)
        real, fake = drawing.pictures
        return replace(drawing, pictures=(real, compress_jpeg(fake, 70)))


@pytest.fixture(scope="module")
def faces() -> list[Face]:
    def make(seed: int) -> Face:
        loaded = LoadedFace(*draw_face(seed, 200))
        return Face(f"face {seed}", f"clip {seed}", f"person {seed}", 0, lambda: loaded)

    return [make(seed) for seed in range(100)]


@pytest.mark.parametrize("augmentation", ["sbi", pytest.param("video", marks=pytest.mark.slow)])
def test_the_generator_leaks_no_more_than_the_published_one_and_nothing_outside_the_blend(
    faces: list[Face], augmentation: str
) -> None:
    samples = BlendedPairs(faces, image_size=SIZE, train=True, steps=build_steps(augmentation))
    found = probe_leak(measure_pairs(samples, PAIRS, 0, quiet))
    assert (found.pairs, found.people) == (PAIRS, 100)
    assert 0.55 < found.whole.value <= PUBLISHED_AUC
    assert abs(found.outside.value - 0.5) < 0.03
    assert not found.has_leak


def test_jpeg_on_the_fakes_alone_is_found(faces: list[Face]) -> None:
    found = probe_leak(measure_pairs(Leaking(faces, image_size=SIZE, train=True), PAIRS, 0, quiet))
    assert found.whole.value >= 0.95
    assert found.outside.value >= 0.65  # little lies outside: at 64 px a ring of some pixels
    assert found.has_leak
    assert "something outside the blend" in "\n".join(found.describe())


def read_photos(folder: Path, name: str) -> Sequence[Face]:
    """The faces of one set of real photos, as a source finds them."""
    root = PHOTOS / name
    if not root.is_dir():
        pytest.skip(f"no photographs at {root}")
    if (root / "index.csv").is_file():
        with (root / "index.csv").open(newline="") as lines:
            rows = [f"{root / row['file']},{row['person']}" for row in csv.DictReader(lines)]
    else:
        rows = [f"{path},{path.stem}" for path in sorted((root / "photos").iterdir())]
    (folder / "faces.csv").write_text("\n".join(("path,person", *rows)) + "\n")
    return find_faces(
        folder / "faces.csv", image_size=112, validation_share=0.05, split_seed=0, allow_shared=False
    ).train


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["sbi", "video"])
def test_photos_in_the_wild_leak_no_more_than_the_published_generator(augmentation: str, folder: Path) -> None:
    photos, steps = read_photos(folder, "faces_cc0"), build_steps(augmentation)
    samples = BlendedPairs(photos, image_size=112, train=True, steps=steps)
    found = probe_leak(measure_pairs(samples, 400, 0, quiet))
    assert found.whole.value <= PUBLISHED_AUC
    assert abs(found.outside.value - 0.5) < 0.03


@pytest.mark.slow
def test_photos_of_a_studio_leak_nothing_outside_the_blend_and_a_planted_leak_is_found(folder: Path) -> None:
    """They are so alike that a tree sees the blend itself: .88 on whole pictures."""
    photos = read_photos(folder, "faces")
    found = probe_leak(measure_pairs(BlendedPairs(photos, image_size=112, train=True), 400, 0, quiet))
    assert abs(found.outside.value - 0.5) < 0.03
    leaking = probe_leak(measure_pairs(Leaking(photos, image_size=112, train=True), 400, 0, quiet))
    assert leaking.whole.value >= 0.95
    assert leaking.outside.value >= 0.65


def test_undoing_a_blend_leaves_what_lies_outside_it() -> None:
    real, fake = np.zeros((48, 48, 3), np.uint8), np.full((48, 48, 3), 9, np.uint8)
    mask = np.zeros((48, 48), np.float32)
    mask[20:24, 20:24] = 0.1
    found = undo_blend(real, fake, mask)[..., 0]
    assert not found[16:28, 16:28].any()  # a twelfth of the side around it
    found[16:28, 16:28] = 9
    assert (found == 9).all()


def test_statistics_that_say_nothing_give_chance_also_where_people_differ() -> None:
    """People held out: a tree that knows a person's picture again gains nothing from it."""
    rng = np.random.default_rng(0)
    people = tuple(f"person {number % 40}" for number in range(200))
    own = rng.normal(size=(40, 12))[np.arange(200) % 40]
    real, fake = own + 0.1 * rng.normal(size=(200, 12)), own + 0.1 * rng.normal(size=(200, 12))
    found = probe_leak(PairStatistics(tuple(f"s{number}" for number in range(12)), real, fake, fake, people))
    assert abs(found.whole.value - 0.5) < 0.1
    assert found.people == 40


def test_single_pictures_and_too_few_people_are_refused(faces: list[Face]) -> None:
    with pytest.raises(UserError, match="pairs of a real face"):
        measure_pairs(LabelledFaces(faces, image_size=SIZE, train=True), 20, 0, quiet)
    samples = BlendedPairs(faces[:4], image_size=SIZE, train=True)
    with pytest.raises(UserError, match="5 people or more"):
        probe_leak(measure_pairs(samples, 20, 0, quiet))


def test_the_command_reads_a_config_and_says_what_it_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_faces(folder / "photos", {f"person{number}": 1 for number in range(9)})
    (folder / "c.json").write_text('{"data_source": "photos", "data_root": "photos", "image_size": 64}')
    with pytest.MonkeyPatch.context() as patch:
        from drawn_sources import LookupDetector, LookupMesh
        from sharpstudent.tasks.deepfake.sources import face_crops

        patch.setattr(face_crops, "load_face_models", lambda **_: (LookupDetector(), LookupMesh()))
        commands.run(["leaks", "c.json", "--pairs", "40", "--set", "augmentation=[]"])
    out = " ".join(capsys.readouterr().out.split())
    assert "40 pairs of 7 people" in out
    assert "outside the blend: AUC 0.5" in out


# --- The statistics -------------------------------------------------------------------------------------------------


def test_statistics_are_finite_and_in_the_same_order_for_any_picture() -> None:
    flat = np.full((40, 56, 3), 255, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    both = [measure_trivia(picture) for picture in (flat, noise)]
    assert list(both[0]) == list(both[1])
    assert all(np.isfinite(list(one.values())).all() for one in both)


def test_moments_shares_and_entropy_have_their_closed_forms() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 16:] = (255, 100, 100)
    found = measure_trivia(picture)
    assert found["mean of red"] == 127.5
    assert found["deviation of green"] == 50
    assert found["skewness of blue"] == pytest.approx(0, abs=1e-9)
    assert (found["share of red at 0"], found["share of red at 255"], found["share of green at 255"]) == (0.5, 0.5, 0)
    assert found["entropy"] == 1


def test_blocks_of_eight_show_at_their_phase_alone() -> None:
    blocks = np.kron(np.random.default_rng(0).integers(0, 256, (8, 8)), np.ones((8, 8))).astype(np.uint8)
    found = measure_trivia(np.dstack([blocks] * 3))
    for way in ("across", "down"):
        assert [round(found[f"blocks {way}, phase {phase}"], 1) for phase in range(7)] == [0] * 7
        assert found[f"blocks {way}, phase 7"] > 7


def test_energy_lies_in_the_ring_of_its_frequency() -> None:
    x = np.arange(96)
    for ring in range(1, 7):
        wave = 128 + 100 * np.sin(2 * np.pi * (ring - 0.5) / 12 * x)
        found = measure_trivia(np.dstack([np.tile(wave, (96, 1)).round().astype(np.uint8)] * 3))
        energies = [found[f"energy in ring {number}"] for number in range(1, 7)]
        assert int(np.argmax(energies)) == ring - 1


def test_a_sharper_centre_shows_against_the_border_and_blur_lowers_all_sharpness() -> None:
    noise = np.random.default_rng(1).integers(90, 160, (64, 64, 3), np.uint8)
    soft = np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.5), np.uint8)
    mixed = soft.copy()
    mixed[16:48, 16:48] = noise[16:48, 16:48]
    for name in ("variance of the Laplacian", "deviation of the residual"):
        assert measure_trivia(mixed)[f"{name}, centre against border"] > 1
        assert measure_trivia(soft)[name] < measure_trivia(noise)[name]
