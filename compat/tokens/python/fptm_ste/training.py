"""Trains, tests and saves one model of the document's command lines with the two scripts of this project."""

from __future__ import annotations

import argparse
import hashlib
import json
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import atomic_path, make_folder, write_text_atomically
from sharpstudent.core.naming import printable

from fptm_ste.flags import CHANNELS, build_config, build_data, build_student

ROOT = Path(__file__).resolve().parents[4]
BEST = "weights/best_model.pth"
# What the document's one-epoch runs on MNIST gave, by architecture: test accuracy and KD loss.
SNAPSHOTS = {"vit": (0.41, 0.36), "swin": (0.36, 0.12)}
STEPS = 118  # of such a run: one epoch of 60,000 digits in batches of 512
AGAIN = ("--resume", "auto")  # the same command goes on with its own run, or finds it finished
TEACHER_EPOCHS = 4  # of a teacher that is trained here


def say(line: str) -> None:
    """Print a line."""
    print(printable(line), flush=True)


def run_script(script: str, *words: str) -> None:
    """Run one of this project's scripts in this process, as a command line with these words."""
    before = sys.argv
    sys.argv = [script, *words]
    try:
        runpy.run_path(str(ROOT / script))["main"]()
    finally:
        sys.argv = before


def train(script: str, config: Mapping[str, Any], name: str, *words: str) -> Path:
    """Write a config, train with it, and return the run folder, which ends in the digest of the config."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    path = Path("output/configs") / f"{digest}.json"
    make_folder(path.parent)
    write_text_atomically(path, json.dumps(config, indent=2) + "\n")
    run_script(script, str(path), "-n", name, *words)
    return find_run(f"{name}_{digest}")


def find_run(start: str) -> Path:
    """Find the newest finished run whose folder begins so."""
    found = [path for path in Path("output").glob(f"{start}_*") if (path / BEST).is_file()]
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def open_data(read: argparse.Namespace, dataset: str) -> dict[str, Any]:
    """Build the group `data` for what lies in the folder of the data: MNIST is fetched where there is nothing.

    Raises:
        UserError: For a data set that is not there.
    """
    root = read.data_root or ROOT / "data" / dataset
    if any(root.glob("train-images*")):
        return build_data(read, dataset, str(root), "idx")
    if (root / "train").is_dir():
        return build_data(read, dataset, str(root), "folder")
    if dataset == "mnist":
        return build_data(read, dataset, str(root), "mnist")
    forms = "train/CLASS/*.png and test/CLASS/*.png" + (", or IDX files" if CHANNELS[dataset] == 1 else "")
    remedy = f"put it there, or give --data-root FOLDER; {ROOT / 'docs/tokens.md'} shows the forms"
    raise UserError.about(f"--dataset {dataset}", "is not there", f"{forms} in {root}", remedy=remedy)


def find_teacher(read: argparse.Namespace, data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Find the teacher that the flags ask for, as an entry of `teachers`; None without one.

    ImageNet weights come from weights/NAME.imagenet.* or timm's hub, and the head is then fitted to the training set.
    A checkpoint is loaded after them, with its head. Where neither can be had, a small CNN is trained first.

    Raises:
        UserError: For a checkpoint without the name of its model.
    """
    name, checkpoint = read.distill_teacher_timm, read.distill_teacher_checkpoint
    if read.distill_teacher_weight <= 0 or (name is None and checkpoint is None):
        return None
    if name is None:
        what, remedy = "needs the name of its model", "--distill-teacher-timm resnet18, or cnn for one trained here"
        raise UserError.about("--distill-teacher-checkpoint", what, remedy=remedy)
    if checkpoint is not None:
        say(f"teacher {name}: {checkpoint} has all its weights, in place of those of timm")
        return {"model": name, "weights": str(checkpoint)}
    missing = find_missing(name, data)
    if missing is None:
        say(f"teacher {name}: ImageNet weights, with a head that is fitted to the training pictures first")
        return {"model": name, "init": "imagenet", "head": "fitted"}
    say(f"teacher {name}: {missing}")
    say(f"so a small CNN is trained for {TEACHER_EPOCHS} epochs first, and teaches in its place; "
        "--distill-teacher-checkpoint FILE gives weights of your own")  # fmt: skip
    keys = {"task": "tokens", "data": dict(data), "student": "cnn", "optimizer": "adamw", "weight_decay": 0.02}
    keys |= {"epoch": TEACHER_EPOCHS, "batch_size": 32, "rho": 0.0, "warmup": 0.05, "stage1": {"lr": 0.002}}
    keys |= {"num_workers": 0, "device": read.device, "seed": read.seed, "report": False}
    run = train("train_student_only.py", keys, "teacher", *AGAIN)
    return {"model": "cnn", "weights": str(run / BEST)}


def find_missing(name: str, data: Mapping[str, Any]) -> str | None:
    """Say why there are no ImageNet weights of a timm model; None where there are some."""
    from sharpstudent.models.pretrained import find_local_weights, load_imagenet
    from sharpstudent.task import ModelSpec
    from sharpstudent.tasks.tokens.task import TokensTask

    if find_local_weights(name) is not None:
        return None
    model = TokensTask(TokensTask.Section(**data)).build_teacher(ModelSpec(name, role="teacher"))
    try:
        load_imagenet(model, name, "teachers[0].init", partial=False)
    except UserError as error:
        return error.problems[0].what
    return None


def run_model(read: argparse.Namespace, dataset: str, model: str) -> dict[str, Any]:
    """Train one model, test it, and do what the other flags ask for.

    Args:
        read: The flags.
        dataset: One of `flags.SIZES`.
        model: One of `flags.BACKENDS`.

    Returns:
        The metrics: `test_acc`, and `teacher_kd_loss` of the last epoch under a teacher.
    """
    student, data = build_student(read, model), open_data(read, dataset)
    config = build_config(read, student=student, data=data, teacher=None)  # refuses before anything slow
    teacher = find_teacher(read, data)
    name = f"{dataset}_{student['name']}"
    if teacher is None:
        run = train("train_student_only.py", config, name, *AGAIN)
    else:
        config = build_config(read, student=student, data=data, teacher=teacher)
        run = train("main_distillation.py", config, name, "--allow", "unpretrained-student", *AGAIN)
    metrics = {**measure(run, read), **_read_last(run, teacher)}
    _tell(read, run, dataset, metrics)
    if read.transformer_save_path is not None:
        save_model(read.transformer_save_path, run, config, metrics)
    if read.visualize_overlays is not None:
        draw_samples(run, read.visualize_overlays, read.visualize_samples)
    return metrics


def open_run(run: Path) -> tuple[Any, Any]:
    """Open the best model of a run, and the task with the run's data."""
    import torch
    from sharpstudent.evaluation.command_line import ModelRequest
    from sharpstudent.evaluation.opened import open_checkpoint
    from sharpstudent.evaluation.tables import read_run_config
    from sharpstudent.tasks.tokens.task import TokensTask

    opened = open_checkpoint(ModelRequest(run), TokensTask, torch.device("cpu"))
    config = read_run_config(run, TokensTask)
    assert config is not None, "a run folder has its config"
    return opened.model, TokensTask(config.task_section, opened.about.get("facts"))


def measure(run: Path, read: argparse.Namespace) -> dict[str, float]:
    """Test the best model of a run on the split `test`, `--test-batch-size` pictures at once."""
    import torch
    from sharpstudent.evaluation.tables import compute_tables

    model, task = open_run(run)
    (samples,) = task.open_data("test")
    device = torch.device("cpu")
    tables, _ = compute_tables([model], samples, task, batch_size=read.test_batch_size, num_workers=0, device=device)
    return {"test_acc": task.metrics["accuracy"].value(tables[0])}


def _read_rows(run: Path) -> list[dict[str, Any]]:
    from sharpstudent.report.logs import MetricsFile

    return MetricsFile(run / "logs" / "metrics.csv").read()


def _read_last(run: Path, teacher: Mapping[str, Any] | None) -> dict[str, float]:
    last = _read_rows(run)[-1]
    found = {"val_acc": float(last["val_accuracy"])}
    if teacher is not None:
        found["teacher_kd_loss"] = float(last["train_teacher_kd_loss"])
    return found


def _tell(read: argparse.Namespace, run: Path, dataset: str, metrics: Mapping[str, float]) -> None:
    rows = _read_rows(run)
    for row in rows if read.report_epoch_acc else ():
        say(f"epoch {row['epoch']}: val_acc {float(row['val_accuracy']):.4f}")
    say(", ".join(f"{name} {value:.4f}" for name, value in metrics.items()) + f" ({run})")
    if dataset == "mnist" and read.epochs == 1:
        accuracy, loss = SNAPSHOTS[read.transformer_arch]
        steps = int(float(rows[-1]["steps"]))
        document = f"test_acc {accuracy}, teacher_kd_loss {loss}, after {STEPS} steps"
        say(f"the document's snapshot: {document}; these are {steps} steps")
        if steps < STEPS:
            say(f"as many steps of this size: --epochs {-(-STEPS // max(steps, 1))}")


def save_model(path: Path, run: Path, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Save state dict, arguments of the class, config and metrics, so that the document's snippet loads them."""
    import torch
    from sharpstudent.task import ModelSpec
    from sharpstudent.tasks.tokens.models import list_arguments

    model, task = open_run(run)
    spec = ModelSpec(config["student"]["name"], {k: v for k, v in config["student"].items() if k != "name"})
    size, channels = config["data"]["image_size"], config["data"]["channels"]
    content = {
        "model_state": model.state_dict(),
        "model_kwargs": list_arguments(spec, classes=len(task.classes), image_size=size, channels=channels),
        "config": dict(config),
        "metrics": dict(metrics),
        "command": list(sys.argv),
    }
    make_folder(path.parent)
    with atomic_path(path) as temporary:
        torch.save(content, temporary)
    say(f"saved: {path}; run folder with results.json and the command: {run}")


def draw_samples(run: Path, folder: Path, count: int) -> None:
    """Draw overlays of the clauses on test pictures, with the data behind them, and put results.json beside them."""
    import numpy as np
    import torch
    from sharpstudent.tasks.tokens.rules import describe_pictures, write_overlays

    model, task = open_run(run)
    (samples,) = task.open_data("test")
    made = [samples.make(place, np.random.default_rng(0)) for place in range(min(count, len(samples)))]
    images = torch.from_numpy(np.concatenate([one.inputs["image"] for one in made]))
    labels, ids = [int(one.targets["label"][0]) for one in made], [str(one.rows["id"][0]) for one in made]
    write_overlays(folder, images, describe_pictures(model, images, labels, ids, task.classes))
    results = run / "results.json"
    if results.is_file():
        write_text_atomically(folder / "results.json", results.read_text())
    say(f"overlays of {len(made)} pictures with their data: {folder}")
