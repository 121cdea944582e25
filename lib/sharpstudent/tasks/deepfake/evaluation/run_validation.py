"""The validation data of a run, found by one of its checkpoints: where no other data is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sharpstudent.config.run_config import RunConfig
from sharpstudent.config.stored import STORED_NAME, load_run_config
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.evaluation.task import Task, TaskData
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.validate import ValidationSet


def find_run_folder(checkpoint: Path) -> Path | None:
    """The run whose weights/ a checkpoint lies in, or that `checkpoint` itself is; None for a file elsewhere."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent.parent
    return folder if (folder / STORED_NAME).is_file() else None


def open_last_validation(paths: Sequence[Path]) -> ValidationSet:
    """Of the last of the models that lies in a run folder. Raises UserError where none does, where its config cannot be
    read, and where its data is no longer there.
    """
    for path in reversed(paths):
        folder = find_run_folder(path)
        if folder is not None:
            return open_validation(load_run_config(folder, {"deepfake": DeepfakeSection}))
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

    def build(image_size: int) -> tuple[Task, TaskData]:
        task = DeepfakeTask(section.model_copy(update={"image_size": image_size}), allow=config.allow)
        return task, task.build_data()

    found = ValidationSet(config.name, section.image_size, build)
    found.build_source(section.image_size)  # what is missing is told before anything is judged
    return found
