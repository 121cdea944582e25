"""What the document calls the distillation trainer: its settings as configs of this project, and its five steps.

A translator: every training is a run of train_student_only.py or main_distillation.py, and every figure comes from
compare_models.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_text
from sharpstudent.core.io import make_folder, write_text_atomically
from sharpstudent.evaluation.planned_runs import PlannedRun, Planner

HERE = Path(__file__).resolve().parents[2]  # compat/skeleton
SIZES = ("nano", "small", "base", "large")
CLASSES = {"xsub60": 60, "xview60": 60, "xsub120": 120, "xset120": 120}
# What the document expects on NTU60 xsub: alone, distilled, gain [per cent].
BANDS = {
    "nano": ("85-87", "87-89", "+2-4"),
    "small": ("87-89", "89-91", "+2-3"),
    "base": ("89-91", "91-92", "+1-2"),
    "large": ("91-93", "92-93", "+0-1"),
}
REPORT = "07_Experiments.md"


@dataclass(frozen=True)
class Settings:
    """A file such as configs/distillation/default.yaml.

    Attributes:
        alpha: The weight of the hard labels; None for that of the student's file.
        tau: The temperature.
        teacher_checkpoint: The teacher's checkpoint, or a pattern.
        teacher: The key `teacher`, from the file that is named.
        student: The file of the student.
        keys: Further keys of a config.
    """

    alpha: float | None
    tau: float
    teacher_checkpoint: str
    teacher: dict[str, Any]
    student: dict[str, Any]
    keys: dict[str, Any]

    def build_keys(self, student: Mapping[str, Any]) -> dict[str, Any]:
        """Build the config of stage 2 for a student; stage 1 reads the same one."""
        keys = json.loads(json.dumps(self.keys))
        data = keys.setdefault("data", {})
        if "classes" not in data:
            count = CLASSES[data.get("protocol", "xsub60")]
            data["classes"] = [f"A{number:03}" for number in range(1, count + 1)]
        alpha = student["alpha"] if self.alpha is None else self.alpha
        lr, batch = keys.get("lr", 0.01), keys.get("batch_size", 16)
        return {
            "stage1": {"lr": lr},
            "stage2": {"batch_size": batch},
            **keys,
            "task": "skeleton",
            "student": student["name"],
            "teacher": self.teacher,
            "teacher_weights": self.teacher_checkpoint,
            "use_progressive_distillation": False,
            "alpha_end": alpha,
            "temperature": self.tau,
        }


def read_settings(path: Path, changes: Sequence[str] = ()) -> Settings:
    """Read a file of settings.

    Args:
        path: The file; files that it names lie below this folder.
        changes: `KEY=VALUE`, as `--set` has them: of the file itself, or with dots into its `keys`.

    Returns:
        The settings.

    Raises:
        UserError: For a file that cannot be read, and unknown or missing keys.
    """
    found = _read_yaml(path)
    for change in changes:
        name, _, value = change.partition("=")
        place, parts = found, name.split(".")
        if parts[0] not in ("alpha", "tau", "teacher_checkpoint", "teacher", "student"):
            place = found.setdefault("keys", {})
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = yaml.safe_load(value)
    known = set(Settings.__dataclass_fields__)
    wrong = sorted(found.keys() ^ known)
    if wrong:
        expected = ", ".join(sorted(known))
        raise UserError.about(str(path), f"has unknown or missing keys: {', '.join(wrong)}", expected,
                              remedy="take them from configs/distillation/default.yaml")  # fmt: skip
    teacher, student = (_read_yaml(HERE / str(found[name])) for name in ("teacher", "student"))
    teacher.pop("alpha", None)  # a LAST-E may teach, too
    return Settings(**{**found, "teacher": teacher, "student": student})


def read_student(size: str) -> dict[str, Any]:
    """Read the file of a student by its size."""
    return _read_yaml(HERE / f"configs/model/last_e_{size}.yaml")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(read_text(path))
        if not isinstance(found, dict):
            raise ValueError("it is no list of keys and values")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError.about(str(path), "cannot be read", got=explain(error), remedy="correct the path") from None
    return found


@dataclass(frozen=True)
class Trained:
    """The runs of a student: alone, alone for as many further steps, and distilled."""

    size: str
    alone: PlannedRun
    longer: PlannedRun
    distilled: PlannedRun


def train_sequence(settings: Settings, out: Path, sizes: Sequence[str]) -> tuple[PlannedRun, list[Trained]]:
    """Steps 1 to 3: the teacher alone, students alone, and each of them distilled. Finished runs are kept.

    Args:
        settings: The settings.
        out: The folder of all runs.
        sizes: The students.

    Returns:
        The teacher's run, and the runs of each student.
    """
    first, second = (Planner(out, HERE, stage=stage) for stage in (1, 2))
    wide = {**settings.build_keys(read_student("base")), "student": settings.teacher, "rho": 0.0}
    teacher = first.plan("last_v2_base", wide, "last_v2_base.json", "last_v2_base", ())
    first.train_all([teacher])
    checkpoint = str(_find(teacher) / "weights/best_model.pth")
    found = list[Trained]()
    for size in sizes:
        keys = {**settings.build_keys(read_student(size)), "teacher_weights": checkpoint}
        alone = first.plan(f"last_e_{size}", keys, f"last_e_{size}.json", f"last_e_{size}", ())
        first.train_all([alone])
        keys["pretrained_student_weights"] = str(_find(alone) / "weights/best_model.pth")
        longer = second.plan(f"longer_{size}", {**keys, "alpha_end": 1.0}, f"longer_{size}.json", f"longer_{size}", ())
        distilled = second.plan(f"distilled_{size}", keys, f"distilled_{size}.json", f"distilled_{size}", ())
        second.train_all([longer, distilled])
        found.append(Trained(size, alone, longer, distilled))
    return teacher, found


def _find(run: PlannedRun) -> Path:
    folder = run.find_folder()
    assert folder is not None, f"{run.name} has just been trained"
    return folder


def compare_all(teacher: PlannedRun, trained: Sequence[Trained], out: Path) -> dict[str, dict[str, Any]]:
    """Step 4: evaluate all on the test, size by size; returns the results of each."""
    from sharpstudent.core.files import read_json
    from sharpstudent.evaluation.command_line import COMPARE, parse_command_line
    from sharpstudent.evaluation.run import run_evaluation
    from sharpstudent.report.console import build_console

    found: dict[str, dict[str, Any]] = {}
    for one in trained:
        folder = out / f"comparison_{one.size}"
        roles = {"--teacher": teacher, "--before": one.alone, "--control": one.longer, "--distilled": one.distilled}
        words = [word for role, run in roles.items() for word in (role, f"{role[2:]}={_find(run)}")]
        words += ["--data", "test", "--no-costs", "--out", str(folder)]
        renderer, request = parse_command_line(words, script=COMPARE)
        run_evaluation(renderer, request, build_console())
        found[one.size] = read_json(folder / "results.json")
    return found


def write_experiments(results: Mapping[str, Mapping[str, Any]], settings: Settings, out: Path) -> Path:
    """Step 5: write the table of students alone and distilled, with the document's bands beside the figures.

    Args:
        results: The results of each size.
        settings: The settings.
        out: The folder.

    Returns:
        The file.
    """
    data = settings.keys.get("data", {})
    lines = [
        "# 07 — Experiments",
        "",
        f"{data.get('data_source', 'ntu')}, protocol {data.get('protocol', 'xsub60')}. Top-1 accuracy in per cent",
        "on the test, which no training opened; in brackets 95 % intervals over people. The bands are those that the",
        "document expects on NTU60 xsub: they are no measurement.",
        "",
        "| Student | Teacher | Alone | expected | Alone, as many further steps | Distilled | expected "
        "| Distilled minus alone for longer | expected gain |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size, one in results.items():
        values = {model["role"]: _format(model["metrics"]["accuracy"]) for model in one["models"]}
        alone, distilled, gain = BANDS[size]
        lines.append(
            f"| LAST-E-{size} | {values['teacher']} | {values['before']} | {alone} | {values['control']} "
            f"| {values['distilled']} | {distilled} | {_find_gain(one)} | {gain} |"
        )
    make_folder(out)
    write_text_atomically(out / REPORT, "\n".join(lines) + "\n")
    return out / REPORT


def _find_gain(results: Mapping[str, Any]) -> str:
    """The paired difference of the distilled student and the control."""
    for pair in results["comparisons"]:
        if pair["metric"] == "accuracy" and {pair["a"], pair["b"]} == {"distilled", "control"}:
            sign = 1.0 if pair["a"] == "distilled" else -1.0
            found = {name: None if pair["difference"].get(name) is None else sign * pair["difference"][name]
                     for name in ("value", "low", "high")}  # fmt: skip
            return _format(found if sign > 0 else {**found, "low": found["high"], "high": found["low"]}, "+")
    return "—"


def _format(estimate: Mapping[str, Any], sign: str = "") -> str:
    if estimate["value"] is None:
        return "—"
    ends = [estimate.get("low"), estimate.get("high")]
    shown = f" [{', '.join(f'{100 * end:{sign}.1f}' for end in ends)}]" if None not in ends else ""
    return f"{100 * estimate['value']:{sign}.1f}{shown}"
