"""Opens trained models for an evaluation.

Checkpoints of this program are opened with the task they were trained for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.core.archive import BEST, find_file
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import compute_sha256
from sharpstudent.core.types import ModelSpec
from sharpstudent.evaluation.command_line import ModelRequest
from sharpstudent.evaluation.model_files import Kind, TensorFile, read_tensor_file
from sharpstudent.evaluation.runtimes import KINDS, ExportedModel, open_runtime, read_export, refuse
from sharpstudent.evaluation.tables import load_config, read_run_config
from sharpstudent.task import Task

MOST_NAMES = 5  # of tensors in a message


@dataclass(frozen=True)
class OpenedModel:
    """A trained model, ready to be evaluated.

    Attributes:
        name: The name in reports.
        path: The path of the file.
        sha256: The sha256 of the file.
        kind: The kind of the file.
        model: The model, in evaluation mode; from a batch's inputs it gives what the task's metrics read.
        architecture: The name of the architecture; None where it is not known.
        about: The description in the file; {} where it has none.
        notes: Remarks for the user: what was matched, guessed or assumed.
        example: Takes a number of samples and a device; returns inputs for them.
        reopen: What a fresh process needs to open it again, as JSON values.
        classes: The order of the file's own logits, where it has classes.
        input_key: Identifies the form of the inputs: a sample is made once for all models with the same key.
        input_words: Words for that form, to be put after a number of samples.
    """

    name: str
    path: Path
    sha256: str
    kind: Kind
    model: nn.Module
    architecture: str | None
    about: Mapping[str, Any]
    notes: tuple[str, ...]
    example: Callable[[int, torch.device], Mapping[str, Tensor]]
    reopen: Mapping[str, Any]
    classes: tuple[str, ...] = ()
    input_key: Hashable = None
    input_words: str = ""


def open_checkpoint(request: ModelRequest, task_class: type[Task], device: torch.device) -> OpenedModel:
    """Open a checkpoint of this program, or its export, with the task that it was trained for.

    Args:
        request: Its file or run folder, and its name. For a file in no run folder, `options` may name a config with the
            task's keys; the checkpoint's own facts say the rest.
        task_class: The class of the task.
        device: The device that the model goes to.

    Returns:
        The model, on the device.

    Raises:
        UserError: For a file that is missing or damaged, that does not say which model it holds, or whose weights are
            not those of that model.
    """
    config = read_run_config(request.path, task_class)
    if config is None and "config" in request.options:
        config = load_config(Path(request.options["config"]), task_class)
    section, path = None if config is None else config.task_section, find_file(request.path)
    build = _open_exported if path.suffix in KINDS else _open_tensors
    model, found = build(path, section, task_class, device)
    task = task_class(section, found["about"].get("facts"))
    return OpenedModel(
        name=request.name or name_model(request.path),
        path=path,
        model=model.to(device).eval(),
        example=lambda count, device: task.example_batch(count).to(device).inputs,
        reopen={
            "task": f"{task_class.__module__}:{task_class.__qualname__}",
            "folders": sys.path,
            "options": {word: str(Path(path).resolve()) for word, path in request.options.items()},
        },
        **found,
    )


def _open_tensors(
    path: Path, section: Any, task_class: type[Task], device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model of a file of tensors; also return the fields of `OpenedModel` that the file decides."""
    file = read_tensor_file(path)
    about = file.about
    if not isinstance(about.get("architecture"), str):
        raise UserError.about(
            where=str(file.path),
            what="does not say which model its weights are of",
            expected="a checkpoint that this program wrote, or the .safetensors beside one",
            remedy="name a run folder, or a file in its weights/",
        )
    task = task_class(section, about.get("facts"))
    spec = ModelSpec(name=about["architecture"], options=about.get("options") or {}, dropout=about.get("dropout"))
    with torch.random.fork_rng(devices=[]):  # opening a model within a run must not change the run's random numbers
        model = task.build_student(spec)
    _load_strictly(model, file)
    fields = {"kind": file.kind, "about": about, "architecture": spec.name, "notes": file.notes}
    return model, {**fields, "sha256": compute_sha256(path)}


def _open_exported(
    path: Path, section: Any, task_class: type[Task], device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """Open a file of another runtime, as `_open_tensors` does for one of tensors."""
    file = open_runtime(path, device=device)
    about = file.runtime.about
    if read_export(path, about) is None:
        raise refuse(path, "does not describe itself", "a file of export_model.py", remedy="export it from its run")
    named = about.get("architecture")
    fields = {"kind": file.kind, "about": about, "architecture": named if isinstance(named, str) else None}
    return ExportedModel(file), {**fields, "notes": file.notes, "sha256": file.sha256}


def _load_strictly(model: nn.Module, file: TensorFile) -> None:
    """Load the weights; raise UserError where names or shapes are not those of the model."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in file.tensors.items()}
    if own != given:
        differ = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
        shown = [
            f"{name}: {own.get(name, 'none')} in the model, {given.get(name, 'none')} in the file" for name in differ
        ]
        raise UserError.about(
            where=str(file.path),
            what=f"does not fit its model: {len(differ)} of {len(own)} tensors differ",
            got="\n".join(shown[:MOST_NAMES]) + ("\n..." if len(shown) > MOST_NAMES else ""),
            remedy="evaluate it with the version of the task that trained it",
        )
    model.load_state_dict(dict(file.tensors))


def choose_device(name: str, *, remedy: str = "--set device=auto") -> torch.device:
    """Choose a device by its name.

    Args:
        name: `cpu`, `cuda`, `mps`, or `auto` for the best there is.
        remedy: The remedy in the error message.

    Returns:
        The device.

    Raises:
        UserError: For a device that torch does not see.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available[name]:
        raise UserError.about(
            where="device",
            what=f"torch sees no {name} device here",
            expected=", ".join(["auto", *(kind for kind, there in available.items() if there)]),
            got=name,
            remedy=remedy,
        )
    return torch.device(name)


def name_model(path: Path) -> str:
    """Name a model after its run folder, also where its best model is given as a file; else after the file."""
    run = path if path.is_dir() else path.parent.parent
    if (path.is_dir() or (path.parent.name, path.stem) == (BEST.parent.name, BEST.stem)) and run.resolve().name:
        return run.resolve().name
    return path.stem
