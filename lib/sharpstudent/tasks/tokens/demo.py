"""What are the clauses worth, and what is the teacher worth: the experiment of `make demo-tokens`.

    python -m sharpstudent.tasks.tokens.demo            from the folder with the scripts; finished runs are kept

Each seed has a fifth of MNIST's 5,000 digits of its own for the test (`data.fold`), a CNN for a teacher, and four
students that differ in their feed-forward layer alone: a Tsetlin machine, an MLP, none, and a machine whose masks keep
their random start. Their attention starts at a tenth of its strength, so that feed-forward layers learn first; a fifth
student, without feed-forward, has it at full strength. After stage 1 each goes on alone for as many steps again; the
machine also goes on under its teacher, without and with SAM. Beside them stands the machine with its core taken out
after training. The digits of all folds are pooled: every picture is tested once, by models that have not seen it, so
that intervals of paired differences are narrow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpstudent.core.arguments import read_number, read_path
from sharpstudent.core.errors import UserError, exit_codes, format_count_of
from sharpstudent.core.files import read_text
from sharpstudent.core.io import make_folder, write_text_atomically

BEST = "weights/best_model.pth"
STAGE = {1: "train_student_only.py", 2: "main_distillation.py"}
GRID = 4  # patches a side
START = {"attention_scale": 0.1, "position_deviation": 0.5}
MACHINE = {"name": "tm_vit", "literals": "single", "clause_specialize": 0.5, **START}
STUDENTS: Mapping[str, Mapping[str, Any]] = {
    "tm": MACHINE,
    "mlp": {"name": "mlp_vit", **START},
    "plain": {"name": "plain_vit", **START},
    "frozen": {**MACHINE, "freeze_clauses": True},
    "full": {"name": "plain_vit", "position_deviation": 0.5},
}
# Votes learn faster than the rest, as clauses vary less than the units of an MLP, and masks more slowly.
RATES = {"tm": {"*.voting": 5.0, "*.ta_*": 0.5}, "frozen": {"*.voting": 5.0}}
HARD = ({"term": "hard", "weight": 1.0},)
DISTILLED = (
    *HARD,
    {"term": "kd", "weight": 1.0, "temperature": 2.0},
    {"term": "self", "weight": 0.5, "temperature": 2.0},
)
# What goes on from the student of stage 1, for as many steps: the terms of the loss, and whether with SAM.
ARMS = {"alone": (HARD, False), "distilled": (DISTILLED, False), "sam": (DISTILLED, True)}
TITLES = {
    "teacher": "CNN, the teacher",
    "mlp_alone": "MLP-ViT",
    "tm": "TM-ViT, stage 1 only",
    "tm_alone": "TM-ViT alone, as many further steps",
    "tm_distilled": "TM-ViT distilled, as many further steps",
    "tm_sam": "TM-ViT distilled with SAM, as many further steps",
    "frozen_alone": "TM-ViT, masks frozen at their random start",
    "plain_alone": "ViT without feed-forward",
    "full_alone": "ViT without feed-forward, attention at full strength",
    "tm_alone_removed": "TM-ViT alone, its machine taken out after training",
    "tm_distilled_removed": "TM-ViT distilled, its machine taken out after training",
    "mlp": "MLP-ViT, stage 1 only",
    "frozen": "TM-ViT with frozen masks, stage 1 only",
    "plain": "ViT without feed-forward, stage 1 only",
    "full": "ViT without feed-forward, attention at full strength, stage 1 only",
    "tm_removed": "TM-ViT of stage 1, its machine taken out after training",
}
FIRST_STAGE = ("teacher", *STUDENTS, "tm_removed")
DIFFERENCES = (
    ("tm_alone", "tm_alone_removed"),
    ("tm_distilled", "tm_distilled_removed"),
    ("tm_alone", "plain_alone"),
    ("tm_alone", "full_alone"),
    ("tm_alone", "frozen_alone"),
    ("tm_alone", "mlp_alone"),
    ("tm_distilled", "tm_alone"),
    ("tm_distilled", "mlp_alone"),
    ("tm_sam", "tm_distilled"),
    ("tm", "tm_removed"),
    ("tm", "plain"),
    ("tm", "full"),
    ("tm", "frozen"),
    ("tm", "mlp"),
)


@dataclass(frozen=True)
class Experiment:
    """The settings of the experiment.

    Attributes:
        out: Its folder.
        data: The keys of the group `data` that all runs share.
        seeds: Seeds, from 1; with MNIST each has a fold of its own.
        epochs: Epochs of each stage.
        teacher_epochs: Epochs of the teacher.
        rho: Radius of SAM in the arm with SAM; 0 leaves that arm out.
        students: Which of STUDENTS are trained.
        stages: 1 to end after stage 1.
    """

    out: Path
    data: Mapping[str, Any]
    seeds: int = 3
    epochs: int = 8
    teacher_epochs: int = 4
    rho: float = 0.05
    students: tuple[str, ...] = tuple(STUDENTS)
    stages: int = 2

    def list_models(self) -> list[str]:
        """List the models of TITLES that belong to these students, stages and arms."""
        models = [name for name in TITLES if name == "teacher" or name.split("_")[0] in self.students]
        models = [name for name in models if self.rho or name != "tm_sam"]
        return [name for name in models if self.stages == 2 or name in FIRST_STAGE]

    def name_folds(self) -> bool:
        """Whether each seed is tested on a fold of its own."""
        return self.data.get("source", "mnist") in ("mnist", "drawn")

    def build_keys(self, seed: int) -> dict[str, Any]:
        """Build the keys that all runs of a seed share."""
        fold = {"fold": (seed - 1) % 5} if self.name_folds() else {}
        return {
            **{"task": "tokens", "data": {**self.data, **fold}, "seed": seed, "optimizer": "adamw"},
            **{"weight_decay": 0.02, "warmup": 0.05, "batch_size": 32, "report": False, "num_workers": 0},
            **{"device": "cpu", "output_root": str(self.out / "runs")},
        }

    def find_run(self, name: str) -> Path | None:
        """Find the folder of a run that has all its epochs."""
        epochs = self.teacher_epochs if name.endswith("_teacher") else self.epochs
        for folder in sorted((self.out / "runs").glob(f"{name}_[0-9][0-9]_*"), reverse=True):
            log = folder / "logs" / "metrics.csv"
            if (folder / BEST).is_file() and log.is_file() and len(read_text(log).splitlines()) > epochs:
                return folder
        return None

    def train(self, stage: int, name: str, keys: Mapping[str, Any]) -> None:
        """Train one run, or go on with it, in a process of its own with one thread.

        Raises:
            UserError: For a run that fails, with the end of what it printed, and for one that an earlier command began
                with other settings.
        """
        config, text = self.out / "configs" / f"{name}.json", json.dumps(keys, indent=2) + "\n"
        if config.is_file() and read_text(config) != text:
            remedy = f"give the earlier options, or another folder: --out {self.out}_2"
            got = f"{config}, of an earlier command"
            raise UserError.about(f"run {name}", "was begun with other settings", "the options of then", got, remedy)
        if self.find_run(name) is not None:
            return print(f"{name}: is there already", flush=True)
        make_folder(config.parent)
        write_text_atomically(config, text)
        command = [sys.executable, STAGE[stage], str(config), "-n", name, "--resume", "auto"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            tail = "\n".join((ended.stdout + ended.stderr).splitlines()[-12:])
            raise UserError.about(f"run {name}", "has failed", got=tail, remedy=f"python {' '.join(command[1:])}")
        print(f"{name}: trained", flush=True)

    def train_seed(self, seed: int) -> None:
        """Train the teacher, the students, and the arms that go on from them."""
        shared, start = {**self.build_keys(seed), "rho": 0.0}, f"s{seed}"
        teacher = {**shared, "student": "cnn", "epoch": self.teacher_epochs, "stage1": {"lr": 0.002}}
        self.train(1, f"{start}_teacher", teacher)
        for kind in (kind for kind in STUDENTS if kind in self.students):
            student = {**STUDENTS[kind], "patch_size": self.data["image_size"] // GRID}
            keys = {**shared, "student": student, "epoch": self.epochs, "stage1": {"lr": 0.006}}
            keys |= {"lr_factors": RATES[kind]} if kind in RATES else {}
            self.train(1, f"{start}_{kind}", keys)
            if self.stages == 2:
                self._train_arms(seed, kind, keys)

    def _train_arms(self, seed: int, kind: str, keys: Mapping[str, Any]) -> None:
        """Train the arms of a student: the machine has all of them, the others go on alone."""
        runs = str(self.out / "runs" / f"s{seed}")
        more = {"teacher": "cnn", "teacher_weights": f"{runs}_teacher_*/{BEST}", "ema_decay": 0.99}
        more["pretrained_student_weights"] = f"{runs}_{kind}_[0-9][0-9]_*/{BEST}"
        for arm, (terms, has_sam) in ARMS.items():
            if f"{kind}_{arm}" in self.list_models():
                stage2 = {"batch_size": 32, "lr": 0.003, "terms": list(terms)}
                rho = self.rho if has_sam else 0.0
                self.train(2, f"s{seed}_{kind}_{arm}", {**keys, **more, "rho": rho, "stage2": stage2})


def evaluate(experiment: Experiment) -> dict[str, Any]:
    """Evaluate every model on the test pictures of its fold, and pool the folds.

    Returns:
        `models`: accuracy with interval, by seed, parameters, multiply-accumulates, and the dead clauses of the seed
        with most of them; `differences`: paired ones.
    """
    from sharpstudent.evaluation.cost import count_macs
    from sharpstudent.metrics.bootstrap import compute_interval, compute_paired
    from sharpstudent.tasks.tokens.task import TokensTask

    names, accuracy, about = experiment.list_models(), TokensTask.metrics["accuracy"], {}
    tables: dict[str, list[Any]] = {name: [] for name in names}
    for seed in range(1, experiment.seeds + 1):
        task = TokensTask(TokensTask.Section(**experiment.build_keys(seed)["data"]))
        models = _open_models(experiment, seed, task)
        for name, table in _compute_tables(models, task).items():
            tables[name].append(table)
            image = task.example_batch(1).inputs
            size = sum(one.numel() for one in models[name].parameters())
            dead = task.inspect_student(models[name]).get("dead_clauses")
            dead = dead if dead is None else max(dead, about.get(name, {}).get("dead") or 0.0)
            about[name] = {"parameters": size, "macs": count_macs(models[name], image), "dead": dead}
    pooled = {name: _pool(parts, experiment.name_folds()) for name, parts in tables.items()}
    rows: dict[str, Any] = {"models": {}, "differences": {}}
    for name in names:
        found = compute_interval(accuracy, pooled[name], group_unit="picture")
        by_seed = [accuracy.value(table) for table in tables[name]]
        ends = {"accuracy": found.value, "low": found.low, "high": found.high, "by_seed": by_seed}
        rows["models"][name] = {"title": TITLES[name], **ends, **about[name]}
    for a, b in (pair for pair in DIFFERENCES if set(pair) <= set(names)):
        found = compute_paired(accuracy, pooled[a], pooled[b], group_unit="picture")
        by_seed = [accuracy.value(one) - accuracy.value(other) for one, other in zip(tables[a], tables[b], strict=True)]
        ends = {"difference": found.value, "low": found.low, "high": found.high, "by_seed": by_seed}
        rows["differences"][f"{a} - {b}"] = ends
    return rows


def _open_models(experiment: Experiment, seed: int, task: Any) -> dict[str, Any]:
    """Open the models of a seed by their names in TITLES; one of them has its machines taken out."""
    import torch

    from sharpstudent.evaluation.command_line import ModelRequest
    from sharpstudent.evaluation.opened import open_checkpoint
    from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer

    def open_one(name: str) -> Any:
        folder = experiment.find_run(f"s{seed}_{name.removesuffix('_removed')}")
        assert folder is not None, f"s{seed}_{name} has just been trained"
        return open_checkpoint(ModelRequest(folder / BEST, name), type(task), torch.device("cpu")).model

    models = {name: open_one(name) for name in experiment.list_models()}
    for name, model in models.items():
        if name.endswith("_removed"):
            assert isinstance(model, UnifiedTMTransformer)
            model.remove_machines()
    return models


def _compute_tables(models: Mapping[str, Any], task: Any) -> dict[str, Any]:
    import torch

    from sharpstudent.evaluation.tables import compute_tables

    (samples,) = task.open_data("test")
    device = torch.device("cpu")
    tables, _ = compute_tables([*models.values()], samples, task, batch_size=64, num_workers=0, device=device)
    return dict(zip(models, tables, strict=True))


def _pool(parts: Sequence[Any], has_folds: bool) -> Any:
    """Put the tables of several folds below each other; tables of one set stay a list, one a seed."""
    from sharpstudent.evaluation.tables import join_parts

    return join_parts(parts) if has_folds else list(parts)


def write_page(rows: Mapping[str, Any], experiment: Experiment) -> str:
    """Write the tables in Markdown."""
    further = ", as many further ones" if experiment.stages == 2 else ""
    seeds, epochs = format_count_of(experiment.seeds, "seed"), format_count_of(experiment.epochs, "epoch")
    where = "each on a fold of its own" if experiment.name_folds() else "on the same test pictures"
    lines = [
        f"{seeds}, {where}; {epochs} of stage 1{further}.",
        "",
        "| Model | test accuracy, % [95 %] | by seed | parameters | million MACs | dead clauses |",
        "|---|---|---|---|---|---|",
    ]
    for one in rows["models"].values():
        by_seed = " ".join(f"{100 * value:.1f}" for value in one["by_seed"])
        dead = "" if one["dead"] is None else f"{one['dead']:.0f}"
        size = f"{one['parameters']:,} | {one['macs'] / 1e6:.2f} | {dead}"
        lines.append(f"| {one['title']} | {_show(one['accuracy'], one)} | {by_seed} | {size} |")
    lines += ["", "| Difference, points [95 %] | | by seed |", "|---|---|---|"]
    for name, one in rows["differences"].items():
        a, b = (TITLES[side] for side in name.split(" - "))
        by_seed = " ".join(f"{100 * value:+.1f}" for value in one["by_seed"])
        lines.append(f"| {a} minus {b} | {_show(one['difference'], one, sign='+')} | {by_seed} |")
    return "\n".join(lines) + "\n"


def _show(value: float, one: Mapping[str, Any], sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} [{100 * one['low']:{sign}.1f}, {100 * one['high']:{sign}.1f}]"


def _read_students(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(STUDENTS):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(STUDENTS)}, got {text!r}")
    return names


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, evaluate, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=read_path, default=Path("output/demo_tokens"), metavar="FOLDER", help="default: %(default)s")
    add("--seeds", type=read_number(int, 1, 100), default=3, metavar="N", help="seeds (%(default)s)")
    add("--epochs", type=read_number(int, 1, 10_000), default=8, metavar="N", help="epochs a stage (%(default)s)")
    add("--teacher-epochs", type=read_number(int, 1, 10_000), default=4, metavar="N", help="(%(default)s)")
    add("--students", type=_read_students, default=tuple(STUDENTS), metavar="A,B", help=f"of {', '.join(STUDENTS)}")
    add("--stages", type=int, choices=(1, 2), default=2, help="1: end after stage 1")
    add(
        "--rho",
        type=read_number(float, 0.0, 10.0),
        default=0.05,
        help="of the arm with SAM; 0: none (%(default)s)",
    )
    add("--jobs", type=read_number(int, 1, 64), default=3, metavar="N", help="seeds side by side (%(default)s)")
    add("--source", choices=("mnist", "idx", "folder", "drawn"), default="mnist", help="as data.source (%(default)s)")
    add("--data-root", metavar="FOLDER", default="data/mnist", help="as data.data_root (%(default)s)")
    add("--image-size", type=read_number(int, 14, 512), default=28, metavar="PX", help="divisible by 4 (%(default)s)")
    add("--channels", type=int, choices=(1, 3), default=1, help="(%(default)s)")
    read = parser.parse_args(argv)
    if read.image_size % GRID:
        parser.error(f"argument --image-size: expected a multiple of {GRID}, got {read.image_size}")
    data = {"source": read.source, "data_root": read.data_root, "image_size": read.image_size}
    experiment = Experiment(
        out=read.out,
        data={**data, "channels": read.channels},
        seeds=read.seeds,
        epochs=read.epochs,
        teacher_epochs=read.teacher_epochs,
        rho=read.rho,
        students=read.students,
        stages=read.stages,
    )
    with ThreadPoolExecutor(read.jobs) as pool:
        list(pool.map(experiment.train_seed, range(1, read.seeds + 1)))
    rows = evaluate(experiment)
    page = write_page(rows, experiment)
    write_text_atomically(read.out / "results.json", json.dumps(rows, indent=2) + "\n")
    write_text_atomically(read.out / "results.md", page)
    print(f"\n{page}\nAlso in {read.out}/results.md and results.json")


if __name__ == "__main__":
    with exit_codes():
        main()
