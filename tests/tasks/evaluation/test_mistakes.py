"""The samples that a model judged worst: each once, with its own picture, also where others stood in for some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Outputs
from sharpstudent.data.dataset import Item, ItemSource, UnreadableItem
from sharpstudent.deploy.mistakes import find_mistakes
from sharpstudent.evaluation.evaluate import Judged, JudgedSet, judge_models
from sharpstudent.evaluation.load_model import OpenedModel
from sharpstudent.evaluation.task import TaskData
from sharpstudent.metrics.aggregation import MAX
from sharpstudent.report.html import ReportPicture
from sharpstudent.report.results import MistakeResult
from sharpstudent.tasks.deepfake.evaluation.datasets import FacesSet
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import FrameColumns, build_set
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.sources.face import Face, LoadedFace
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.validate import ValidationSet
from torch import nn

SIDE = 8
SEED = 3


class Pairs:
    """A real and a fake picture an item, with noise from the item's own generator. An unreadable one is reported by
    another name than its own, as a frame is whose landmarks are damaged.
    """

    def __init__(self, items: int, *, broken: Sequence[int] = ()) -> None:
        self._items, self._broken = items, frozenset(broken)

    def __len__(self) -> int:
        return self._items

    def name_of(self, index: int) -> str:
        return f"frames/{index}.png"

    def make(self, index: int, rng: np.random.Generator) -> Item:
        if index in self._broken:
            raise UnreadableItem(f"landmarks/{index}.npy", "is damaged")
        images = rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
        names = (f"{self.name_of(index)}#real0", f"{self.name_of(index)}#blend0")
        return Item(images, (0, 1), names, f"clip {index // 2}", f"person {index // 4}")


class Contrary(nn.Module):
    """Calls bright pictures fake and dark ones real, which neither reals nor fakes have to do with."""

    def forward(self, images: torch.Tensor) -> Outputs:
        margin = 40.0 * (images.mean(dim=(1, 2, 3)) - 0.5)
        return Outputs(torch.stack([-margin / 2, margin / 2], dim=1))


def open_contrary() -> OpenedModel:
    return OpenedModel("contrary", Path("contrary.pth"), "", "checkpoint", Contrary(), None, SIDE, {}, ())


def judge(found: JudgedSet, *, batch_size: int = 3) -> Judged:
    return judge_models(
        [open_contrary()],
        [found],
        device=torch.device("cpu"),
        num_workers=0,
        batch_size=batch_size,
        say=lambda _: None,
    )


def find(found: JudgedSet, **settings: Any) -> tuple[list[MistakeResult], list[ReportPicture]]:
    judged = judge(found)
    return find_mistakes(judged.models[0], [found], judged.unreadable, first_picture=5, **settings)


def make_validation(source: ItemSource) -> ValidationSet:
    data = TaskData(source, source, 1, SEED, ())
    return ValidationSet("a run", SIDE, lambda _: (DeepfakeTask(DeepfakeSection(data_source="ffpp")), data))


def compute_margin(image: np.ndarray) -> float:
    return 40.0 * float(image.mean() / 255 - 0.5)


def list_wrong(source: Pairs, items: Sequence[int]) -> list[tuple[str, np.ndarray]]:
    """Name and picture of what `Contrary` judges wrong, worst first, made one by one."""
    found: list[tuple[float, str, np.ndarray]] = []
    for index in items:
        item = source.make(index, build_generator(SEED, 0, index))
        for image, label, name in zip(item.images, item.labels, item.sample_ids, strict=True):
            distance = compute_margin(image) * (1 if label == 0 else -1)
            if distance >= 0:
                found.append((distance, name, image))
    return [(name, image) for _, name, image in sorted(found, key=lambda one: (-one[0], one[1]))]


@pytest.mark.parametrize("most", [1, 4, 100])
@pytest.mark.parametrize("broken", [(), (4,), (0, 5, 6, 10)], ids=str)
def test_the_worst_of_a_validation_come_with_the_very_pictures_each_once(broken: tuple[int, ...], most: int) -> None:
    source = Pairs(11, broken=broken)
    expected = list_wrong(source, [index for index in range(11) if index not in broken])
    mistakes, pictures = find(make_validation(source), most=most)
    assert len(expected) > 4
    assert [mistake.sample_id for mistake in mistakes] == [name for name, _ in expected[:most]]
    assert [mistake.picture for mistake in mistakes] == list(range(5, 5 + len(mistakes)))
    for mistake, picture, (_, image) in zip(mistakes, pictures, expected, strict=False):
        np.testing.assert_array_equal(picture.image, image)
        index = int(mistake.sample_id.split("/")[1].split(".")[0])
        is_fake = mistake.sample_id.endswith("#blend0")
        assert (mistake.label, mistake.manipulation) == ((1, "self-blend") if is_fake else (0, ""))
        assert mistake.clip_id == f"clip {index // 2}{'#blend' if is_fake else ''}"
        assert mistake.probability == pytest.approx(1 / (1 + np.exp(-compute_margin(image))), abs=1e-5)


@pytest.mark.parametrize("broken", [(), (4,)], ids=str)
def test_the_samples_of_a_validation_are_its_rows_one_by_one(broken: tuple[int, ...]) -> None:
    found = make_validation(Pairs(7, broken=broken))
    (scores,) = judge(found).models[0].scores
    samples = found.list_samples(scores)
    frames = found.to_frames(scores, {})
    assert len(samples.names) == len(samples.margins) == len(samples.labels) == len(samples.clip_ids) == 14
    assert len(frames) == 14 - 2 * len(broken)
    margins = dict(zip(frames.sample_ids, frames.margins, strict=True))
    clips = dict(zip(frames.sample_ids, frames.clip_ids, strict=True))
    for row, name in enumerate(samples.names):
        assert samples.margins[row] == pytest.approx(margins[name], abs=1e-5)
        assert samples.clip_ids[row] == clips[name]
        assert samples.labels[row] == name.endswith("#blend0")


def test_a_picture_that_is_gone_since_leaves_its_mistake_without_one() -> None:
    found = make_validation(Pairs(11))
    judged = judge(found)
    (worst, *_), _ = find_mistakes(judged.models[0], [found], judged.unreadable, first_picture=0)
    index = int(worst.sample_id.split("/")[1].split(".")[0])
    mistakes, pictures = find_mistakes(
        judged.models[0], [make_validation(Pairs(11, broken=(index,)))], judged.unreadable, first_picture=0
    )
    assert mistakes[0].sample_id == worst.sample_id
    assert mistakes[0].picture is None
    assert len(pictures) == len([mistake for mistake in mistakes if mistake.picture is not None]) > 0


def make_faces(count: int, *, broken: Sequence[int] = ()) -> FacesSet:
    """Faces whose labels alternate, each of one shade of noise."""

    def make_face(number: int) -> Face:
        def load() -> LoadedFace:
            if number in broken:
                raise UnreadableItem(f"face {number}", "is empty (0 bytes)")
            rng = np.random.default_rng(number)
            return LoadedFace(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))

        return Face(f"face {number}", f"clip {number}", f"person {number // 2}", number % 2, load)

    faces = [make_face(number) for number in range(count)]
    columns = FrameColumns(
        [face.name for face in faces],
        [face.clip_id for face in faces],
        [face.identity for face in faces],
        ["drawn" if face.label else "" for face in faces],
        np.array([face.label for face in faces]),
    )
    names = [face.name for face in faces]
    about: dict[str, Any] = {"kind": "crops", "split": None, "fingerprint": "", "faces_rule": ""}
    return FacesSet(build_set("made", faces, columns, np.arange(count), MAX, name_faces=lambda: names, **about))


@pytest.mark.parametrize("broken", [(), (4, 7)], ids=str)
def test_a_face_that_could_not_be_read_is_no_mistake_whatever_stood_in_for_it(broken: tuple[int, ...]) -> None:
    found = make_faces(20, broken=broken)
    source = found.build_source(SIDE)
    made = {i: source.make(i, np.random.default_rng(0)).images[0] for i in range(20) if i not in broken}
    distances = {i: compute_margin(image) * (1 - 2 * (i % 2)) for i, image in made.items()}
    expected = sorted((i for i, distance in distances.items() if distance >= 0), key=lambda i: -distances[i])
    mistakes, pictures = find(found, most=100)
    assert len(expected) > 4
    assert [mistake.sample_id for mistake in mistakes] == [f"face {i}" for i in expected]
    assert [(mistake.label, mistake.manipulation) for mistake in mistakes] == [
        (i % 2, "drawn" if i % 2 else "") for i in expected
    ]
    for i, picture in zip(expected, pictures, strict=True):
        np.testing.assert_array_equal(picture.image, made[i])


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_each_score_is_of_its_own_face_and_the_labels_are_the_sets(batch_size: int) -> None:
    found = make_faces(20, broken=(4, 7))
    whole, with_broken = (judge(one, batch_size=batch_size).models[0] for one in (make_faces(20), found))
    others = [i for i in range(20) if i not in (4, 7)]
    assert whole.scores[0].labels.tolist() == [i % 2 for i in range(20)]
    np.testing.assert_allclose(with_broken.scores[0].logits[others], whole.scores[0].logits[others], rtol=1e-6)
    assert with_broken.frames.labels.tolist() == [i % 2 for i in range(20)]
    assert np.flatnonzero(~with_broken.frames.decided).tolist() == [4, 7]
