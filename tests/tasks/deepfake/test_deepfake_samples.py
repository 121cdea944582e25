"""Samples of the deepfake task, its metrics, and the errors that stop a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_faces import draw_face
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Sample, Table
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.data.loader import load_batches
from sharpstudent.data.sampler import TrainSampler, evaluation_batches
from sharpstudent.metrics.checks import MetricError
from sharpstudent.tasks.deepfake.layouts.listing import walk_files
from sharpstudent.tasks.deepfake.samples import BlendedPairs, LabelledFaces
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.sources.face import PICTURE_SUFFIXES, Face, LoadedFace, read_picture
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.validate import compute_metrics

SIZE = 48


def make_face(seed: int) -> Face:
    image, landmarks = draw_face(seed, 120)
    return Face(f"face {seed}", f"clip {seed}", f"person {seed}", 0, lambda: LoadedFace(image, landmarks))


FACES = [make_face(seed) for seed in range(3)]
TASK = DeepfakeTask(DeepfakeSection())


def evaluate(source: BlendedPairs, *, workers: int = 0) -> list[torch.Tensor]:
    batches = evaluation_batches(len(source), 4)
    loaded = load_batches(source, batches, seed=0, num_workers=workers, collate=TASK.collate)
    return [b.batch.inputs["image"] for b in loaded]


def pictures_of(sample: Sample) -> bytes:
    return sample.inputs["image"].tobytes()


def test_augmentation_of_a_training_sample_depends_on_its_generator_only() -> None:
    source = BlendedPairs(FACES, image_size=SIZE, train=True)
    one, same, other = (source.make(0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert pictures_of(one) == pictures_of(same)
    assert pictures_of(one) != pictures_of(other)
    assert one.targets["label"].tolist() == [0, 1]
    assert one.rows["id"] == ("face 0#real", "face 0#blend")
    assert (one.rows["clip"], one.rows["group"]) == (("clip 0",) * 2, ("person 0",) * 2)
    assert (source.name(0), source.group(0)) == ("face 0", "person 0")


def test_training_batches_are_the_same_bytes_for_any_number_of_workers_and_after_a_restart() -> None:
    source = BlendedPairs(FACES, image_size=SIZE, train=True)
    order = TrainSampler(3, 2, 3, seed=4)

    def load(workers: int, start: int = 0) -> list[bytes]:
        batches = order.batches(2, start_step=start)
        loaded = load_batches(source, batches, seed=4, num_workers=workers, collate=TASK.collate)
        return [b.batch.inputs["image"].numpy().tobytes() for b in loaded]

    whole = load(0)
    assert load(2) == whole
    assert load(1, start=2) == whole[2:]


@pytest.mark.parametrize("repeats", [1, 3])
def test_validation_gives_each_face_the_configured_number_of_different_blends(repeats: int) -> None:
    source = BlendedPairs(FACES, image_size=SIZE, train=False, times=repeats)
    assert len(source) == 3 * repeats
    fakes: dict[str, set[bytes]] = {}
    names: list[str] = []
    for (key,) in evaluation_batches(len(source), 1):
        sample = source.make(key.index, build_generator(0, key.epoch, key.index))
        fakes.setdefault(source.group(key.index), set()).add(sample.inputs["image"][-1].tobytes())
        assert set(sample.rows["group"]) == {source.group(key.index)}
        names += sample.rows["id"]
        assert source.name(key.index) == f"face {key.index % 3}"
    assert [len(blends) for blends in fakes.values()] == [repeats] * 3
    assert len(set(names)) == len(names)


def test_two_evaluations_see_the_same_pictures_with_any_number_of_workers() -> None:
    source = BlendedPairs(FACES, image_size=SIZE, train=False, times=2)
    first = evaluate(source)
    for other in (evaluate(source), evaluate(source, workers=2)):
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_face_without_landmarks_cannot_be_blended() -> None:
    image = FACES[0].load().image
    face = replace(FACES[0], load=lambda: LoadedFace(image))
    with pytest.raises(UnreadableSample, match="has no landmarks"):
        BlendedPairs([face], image_size=SIZE, train=True).make(0, np.random.default_rng(0))


def test_a_labelled_face_keeps_its_label_through_augmentation() -> None:
    faces = [replace(face, label=i % 2) for i, face in enumerate(FACES)]
    source = LabelledFaces(faces, image_size=SIZE, train=True)
    assert [source.make(i, np.random.default_rng(i)).targets["label"].tolist() for i in range(3)] == [[0], [1], [0]]
    one, other = (source.make(0, np.random.default_rng(seed)).inputs["image"] for seed in (1, 3))
    assert one.shape == (1, SIZE, SIZE, 3)
    assert one.tobytes() != other.tobytes()


def test_the_picture_of_a_batch_shows_each_real_face_beside_its_blend_and_mask(folder: Path) -> None:
    from sharpstudent.evaluation.renderer import load_renderer
    from sharpstudent.tasks.deepfake.report.pictures import draw_batch

    source = BlendedPairs(FACES, image_size=SIZE, train=True)
    samples = [source.make(i, np.random.default_rng(i)) for i in range(3)]
    batch = TASK.collate(samples, [source.group(i) for i in range(3)])
    assert batch.targets["label"].tolist() == [0, 1, 0, 1, 0, 1]
    load_renderer(TASK).draw_batch(folder / "found.png", batch)
    pictures = np.concatenate([sample.inputs["image"] for sample in samples])
    masks = np.concatenate([sample.rows["mask"] for sample in samples])
    names = [f"face {i}#{kind}" for i in range(3) for kind in ("real", "blend")]
    draw_batch(folder / "wanted.png", pictures, [0, 1] * 3, names, masks=masks)
    draw_batch(folder / "without.png", pictures, [0, 1] * 3, names)
    found, wanted, without = ((folder / f"{name}.png").read_bytes() for name in ("found", "wanted", "without"))
    assert found == wanted != without


# --- Pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_pictures_truncated_anywhere_are_unreadable(folder: Path, suffix: str) -> None:
    import cv2

    whole = cv2.imencode(suffix, draw_face(1, 100)[0][..., ::-1])[1].tobytes()
    path = folder / f"a{suffix}"
    path.write_bytes(whole)
    assert read_picture(path).shape == (100, 100, 3)
    for share in (0.0, 0.01, 0.3, 0.7, 0.97):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UnreadableSample) as caught:
            read_picture(path)
        assert caught.value.path == str(path)


def test_a_picture_is_read_as_rgb_also_when_it_is_grey_or_has_alpha(folder: Path) -> None:
    import cv2

    for name, pixels in {
        "color": np.full((4, 4, 3), (0, 0, 200), np.uint8),  # OpenCV writes BGR
        "alpha": np.full((4, 4, 4), (0, 0, 200, 9), np.uint8),
        "grey": np.full((4, 4), 200, np.uint8),
        "deep": np.full((4, 4), 200 * 257, np.uint16),
    }.items():
        (folder / f"{name}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        image = read_picture(folder / f"{name}.png")
        assert (image.dtype, image.shape) == (np.uint8, (4, 4, 3))
        assert image[0, 0].tolist() == ([200, 0, 0] if name in ("color", "alpha") else [200, 200, 200])


def test_a_header_that_claims_a_huge_picture_is_unreadable(folder: Path) -> None:
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", 2**30, 2**30, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (folder / "huge.png").write_bytes(png)
    with pytest.raises(UnreadableSample):
        read_picture(folder / "huge.png")


def test_a_folder_or_nothing_under_a_pictures_name_is_unreadable(folder: Path) -> None:
    (folder / "dir.jpg").mkdir()
    for name in ("dir.jpg", "absent.jpg"):
        with pytest.raises(UnreadableSample):
            read_picture(folder / name)


def test_pictures_are_listed_in_order_whatever_the_case_of_their_suffix(folder: Path) -> None:
    for name in ("b/2.JPG", "a/1.jpeg", "a/.hidden.png", ".cache/3.png", "a/notes.txt", "c.WebP"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    rejected: dict[str, str] = {}
    found = walk_files(folder, rejected.setdefault, any_name=True)
    assert [str(path.relative_to(folder)) for path in found] == ["a/1.jpeg", "a/notes.txt", "b/2.JPG", "c.WebP"]
    assert [path.name for path in found if path.name.lower().endswith(PICTURE_SUFFIXES)] == [
        "1.jpeg",
        "2.JPG",
        "c.WebP",
    ]
    assert rejected == {}


# --- Metrics and the registry ---------------------------------------------------------------------------------------


def make_table(logits: list[list[float]], labels: list[int]) -> Table:
    names = np.array([f"face {i}" for i in range(len(labels))])
    kinds = np.array(["self-blend" if label else "" for label in labels])
    rows = {"id": names, "clip": names, "group": names, "manipulation": kinds}
    return {"logits": np.array(logits, np.float32), "label": np.array(labels), **rows}


def test_the_metrics_are_auc_and_accuracy_of_the_fake_class() -> None:
    metrics = compute_metrics(TASK, make_table([[1, 0], [0, 1], [0, 3], [2, 0]], [0, 0, 1, 1]), "auc")
    assert np.isnan(metrics.pop("val_video_auc"))  # stills are no videos
    assert metrics == {"val_auc": 0.5, "val_accuracy": 0.5, "val_ap": 0.75, "val_eer": 0.5}
    assert f"val_{TASK.default_metric}" in metrics
    assert TASK.classes == ("real", "fake")


def test_a_non_finite_score_or_one_class_is_an_error_that_names_it() -> None:
    """Defect 9 of the original project: NaN predictions became 0.5."""
    with pytest.raises(MetricError, match="face 1"):
        compute_metrics(TASK, make_table([[0, 1], [float("nan"), 1], [0, 1]], [0, 1, 1]), "auc")
    with pytest.raises(MetricError, match="one class only"):
        compute_metrics(TASK, make_table([[0, 1], [0, 2]], [1, 1]), "auc")


def test_only_ffpp_has_published_results() -> None:
    for source, expected in (("ffpp", True), ("photos", False), ("labelled", False)):
        assert DeepfakeTask(DeepfakeSection(data_source=source)).has_published_bands == expected  # type: ignore[arg-type]


def test_the_registry_knows_the_task_and_its_section() -> None:
    from sharpstudent.registry import find_task

    assert find_task("deepfake") is DeepfakeTask
    assert DeepfakeTask.Section is DeepfakeSection
