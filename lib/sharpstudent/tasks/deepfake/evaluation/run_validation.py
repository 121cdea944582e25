"""Opens the validation data of a run, which is used where the user names no data set."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Table
from sharpstudent.data.dataset import Samples
from sharpstudent.evaluation.tables import note_validation
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import FaceSet, build_data_result, find_input
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames, build_frames
from sharpstudent.tasks.deepfake.evaluation.manifest_set import find_columns
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.report.results import DataResult
from sharpstudent.tasks.deepfake.samples import FaceSamples
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.task import DeepfakeTask

Build = Callable[[int], tuple[DeepfakeTask, Samples]]


class ValidationSet(FaceSet):
    """The validation data of a run."""

    def __init__(self, run: str, image_size: int, build: Build) -> None:
        """Keep the function that builds the data; nothing is opened yet.

        Args:
            run: The name of the run.
            image_size: The side of the run's pictures [px].
            build: Takes a side of the input [px] and returns the task with its data at that size.
        """
        self._run, self._image_size, self._build = run, image_size, functools.cache(build)
        self.name = f"validation of {run}".replace("/", "-")

    @property
    def task(self) -> DeepfakeTask:
        """The run's task."""
        return self._build(self._image_size)[0]

    def open(self, input_key: Hashable) -> Samples:
        """Open the samples at the size of a network's input [px]. Raises UserError where it is no longer there."""
        return self._build(find_input(input_key).image_size)[1]

    def to_frames(self, table: Table, unreadable: Mapping[str, str]) -> ScoredFrames:
        """Make frames as the run itself did.

        Args:
            table: A model's table of the samples.
            unreadable: Not used: such samples were replaced in the run, too, and `describe` names them.

        Returns:
            The frames with their scores.
        """
        return build_frames(table, source=self.name, is_blended=self.task.is_blended, has_videos=self.has_videos())

    @property
    def table(self) -> Path | None:
        """The table that the run's data was made from."""
        root = Path(self.task.section.data_root)
        if self.task.section.data_source == "manifest":
            return find_columns(root if root.is_dir() else root.parent)
        return root if root.is_file() else None

    def has_videos(self) -> bool:
        """Say whether the data has videos, which tables of before November 2026 do not tell from a person's folder."""
        _, samples = self._build(self._image_size)
        return not isinstance(samples, FaceSamples) or samples.has_videos()

    def list_faces(self, table: Table) -> ScoredFrames:
        """Make a row for each row of the table."""
        frames, names = self.to_frames(table, {}), table["id"].tolist()
        place = {name: number for number, name in enumerate(frames.sample_ids)}  # a substitute's frame is there once
        of_rows = frames.take(np.array([place[name] for name in names]))
        return replace(of_rows, margins=compute_margins(table), labels=table["label"])

    def describe(self, table: Table, unreadable: Mapping[str, str]) -> DataResult:
        """Describe the data; its fingerprint is over names, labels and the seed of the samples' randomness.

        Args:
            table: The table of any of the models.
            unreadable: Samples that were replaced, by name with the reason.

        Returns:
            Names, counts and notes.
        """
        frames = self.to_frames(table, {})
        seed = self.open(self._image_size).seed
        text = "\n".join(
            f"{name} {label}" for name, label in zip(frames.sample_ids, frames.labels.tolist(), strict=True)
        )
        notes = [f"{name} could not be read ({reason}); another sample is used" for name, reason in unreadable.items()]
        return build_data_result(
            frames,
            name=self.name,
            kind="validation",
            split="val",
            fingerprint=hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).hexdigest(),
            faces=len(frames),
            faces_rule="one face a picture, as the run's own validation",
            notes=(note_validation(self._run), *notes),
        )


def open_validation(config: RunConfig | None, paths: Sequence[Path]) -> ValidationSet:
    """Open the validation data of a run.

    Args:
        config: The config of the run; None where none of the models lies in a run folder.
        paths: The paths of the models, for the message.

    Returns:
        The data.

    Raises:
        UserError: Where there is no config, and where the data is no longer there.
    """
    if config is None:
        raise UserError.about(
            "--data",
            "is not given, and none of the models lies in a run folder whose validation data could be used",
            got=", ".join(map(str, paths)),
            remedy="--data SET: what prepare_faces.py has made, or a folder with real/ and fake/",
        )
    section = config.task_section
    assert isinstance(section, DeepfakeSection)

    def build(image_size: int) -> tuple[DeepfakeTask, Samples]:
        task = DeepfakeTask(section.model_copy(update={"image_size": image_size}), allow=config.allow)
        (validation,) = task.open_data("validation")
        return task, validation

    found = ValidationSet(config.name, section.image_size, build)
    found.open(section.image_size)  # what is missing is reported before anything is evaluated
    return found
