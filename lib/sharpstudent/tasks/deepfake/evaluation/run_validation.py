"""The validation data of a run, found by one of its checkpoints: where no other data is named."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from sharpstudent.config.run_config import RunConfig
from sharpstudent.config.stored import load_run_config
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.types import Table
from sharpstudent.data.dataset import Samples
from sharpstudent.evaluation.tables import EvalSet, find_run_folder, note_validation
from sharpstudent.registry import find_task
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames, build_frames
from sharpstudent.tasks.deepfake.evaluation.mistakes import Pictures
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.report.results import DataResult
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.task import DeepfakeTask

Build = Callable[[int], tuple[DeepfakeTask, Samples]]


class ValidationSet(EvalSet):
    """run: its name; image_size: of its pictures [px]; build: the task and its data at a size of input."""

    def __init__(self, run: str, image_size: int, build: Build) -> None:
        self._run, self._image_size, self._build = run, image_size, build
        self.name = f"validation of {run}".replace("/", "-")
        self._built: dict[int, tuple[DeepfakeTask, Samples]] = {}
        self._frames: ScoredFrames | None = None

    @property
    def task(self) -> DeepfakeTask:
        """The run's."""
        return self._get(self._image_size)[0]

    def open(self, input_key: Hashable) -> Samples:
        """Its items at the size of a network's input [px]. Raises UserError where the run's data is no longer there."""
        assert isinstance(input_key, int)
        return self._get(input_key)[1]

    def to_frames(self, table: Table, unreadable: Mapping[str, str]) -> ScoredFrames:
        """As the run itself was judged: items that could not be read were replaced there too; `describe` names them."""
        frames = self._frames = build_frames(table, source=self.name, is_blended=self.task.is_blended)
        return frames

    def list_pictures(self, table: Table) -> Pictures:
        frames, names = self.to_frames(table, {}), table["id"].tolist()
        place = {name: number for number, name in enumerate(frames.sample_ids)}  # a substitute's frame is there once
        return Pictures(
            table["label"],
            compute_margins(table),
            names,
            [frames.clip_ids[place[name]] for name in names],
            [frames.manipulations[place[name]] for name in names],
            table["key"],
        )

    def describe(self, unreadable: Mapping[str, str]) -> DataResult:
        """After `to_frames`. The fingerprint is over names, labels and the seed of the items' randomness."""
        frames = self._frames
        assert frames is not None
        seed = self._get(self._image_size)[1].seed
        labels = frames.labels.tolist()
        text = "\n".join(f"{name} {label}" for name, label in zip(frames.sample_ids, labels, strict=True))
        kinds = Counter(kind for kind, label in zip(frames.manipulations, labels, strict=True) if label == 1)
        notes = [note_validation(self._run)]
        notes += [f"{name} could not be read ({reason}); another item stood in" for name, reason in unreadable.items()]
        return DataResult(
            name=self.name,
            kind="validation",
            split="val",
            fingerprint=hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).hexdigest(),
            frames=len(frames),
            faces=len(frames),
            real=labels.count(0),
            fake=labels.count(1),
            videos=len(set(frames.clip_ids)),
            people=len(set(frames.groups)),
            faces_rule="one face a picture, as the run's own validation",
            manipulations=dict(sorted(kinds.items())),
            notes=tuple(notes),
        )

    def _get(self, image_size: int) -> tuple[DeepfakeTask, Samples]:
        if image_size not in self._built:
            self._built[image_size] = self._build(image_size)
        return self._built[image_size]


def open_last_validation(paths: Sequence[Path]) -> ValidationSet:
    """Of the last of the models that lies in a run folder. Raises UserError where none does, where its config cannot be
    read, and where its data is no longer there.
    """
    for path in reversed(paths):
        folder = find_run_folder(path)
        if folder is not None:
            return open_validation(load_run_config(folder, find_task))
    raise UserError(
        Problem(
            "--data",
            "is not given, and none of the models lies in a run folder whose validation data could be used",
            got=", ".join(map(str, paths)),
            remedy="--data SET: what prepare_faces.py has made, or a folder with real/ and fake/",
        )
    )


def open_validation(config: RunConfig) -> ValidationSet:
    """Of the run with this config. Raises UserError where its data is no longer there."""
    section = config.task_section
    assert isinstance(section, DeepfakeSection)

    def build(image_size: int) -> tuple[DeepfakeTask, Samples]:
        task = DeepfakeTask(section.model_copy(update={"image_size": image_size}), allow=config.allow)
        (validation,) = task.open_data("validation")
        return task, validation

    found = ValidationSet(config.name, section.image_size, build)
    found.open(section.image_size)  # what is missing is told before anything is judged
    return found
