"""Three seeds of the demo with its control, evaluated on people used neither for training, tuning nor selection.

    make results            writes docs/results.md and docs/results.json; finished runs are kept and not repeated

Per seed: a teacher, stage 1, and five ways to take the same further steps from the same stage-1 checkpoint: hard labels
alone (the control: alpha 1 all the way), distillation as the demo has it, and distillation with one thing more: a
feature term, averaged weights that also teach, or the next seed's teacher beside the own one. The settings of these
were written down once and not tuned. The results are written whatever the verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from sharpstudent.config.cli import compare_configs, load_run_config, parse_command_line
from sharpstudent.config.load import read_config_file
from sharpstudent.core.errors import Problem, UserError, exit_codes
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.types import Table
from sharpstudent.metrics.bootstrap import compute_interval, compute_paired
from sharpstudent.metrics.intervals import Estimate
from sharpstudent.metrics.metric import make_binary_metric
from sharpstudent.registry import find_task
from sharpstudent.report.logs import MetricsFile
from sharpstudent.tasks.deepfake.metrics import compute_margins

from demo.measure import BLENDS, load_trained, score_people

SEEDS = (1, 2, 3)
OUTPUT = Path("output/results")
HARD_ONLY = ("use_progressive_distillation=false", "alpha_end=1.0")
AUC = make_binary_metric("auc_by_rank", compute_margins)
MODELS = {
    "teacher": "Teacher, tf_efficientnet_lite2",
    "student": "Student pre-trained (stage 1), tf_efficientnet_lite0",
    "hard": "Student + hard labels for as many further steps",
    "distill": "Student + distillation (stage 2)",
    "features": "Student + distillation + feature term",
    "ema": "Student + distillation + averaged weights, which also teach",
    "two": "Student + distillation from two teachers",
}
FIRST = ("teacher", "student")  # what the others start from
DIFFERENCES = (
    ("distill", "hard"),
    ("features", "hard"),
    ("ema", "hard"),
    ("two", "hard"),
    ("features", "distill"),
    ("ema", "distill"),
    ("two", "distill"),
    ("distill", "student"),
    ("teacher", "distill"),
)
# The demo's own loss in native form, and what each variant adds to it.
ALPHA = {"kind": "staircase", "start": 0.5, "end": 0.1, "epochs": 2}
DISTILL = (
    {"term": "hard", "weight": ALPHA},
    {"term": "kd", "weight": ALPHA | {"complement": True}, "temperature": 2.0},
)
LAST_BLOCK = "backbone.blocks.6"
FEATURES = {
    "term": "features",
    "weight": 0.5,
    "student_layer": LAST_BLOCK,
    "teacher_layer": LAST_BLOCK,
    "distance": "cosine",
}
SELF = {"term": "self", "weight": 0.2, "temperature": 2.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "features": {"terms": [*DISTILL, FEATURES]},
    "ema": {"terms": [*DISTILL, SELF], "ema_decay": 0.98},
}
FLAT_KEYS = ("temperature", "use_progressive_distillation", "alpha_start", "alpha_end", "progressive_epochs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=min(len(SEEDS), os.cpu_count() or 1), help="seeds at a time")
    jobs = parser.parse_args().jobs
    _run("fetch_models.py", "demo")
    _run("demo/fetch_portraits.py")
    for variant in VARIANTS:
        _write_config(variant)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda seed: [_train(seed, what, threads) for what in FIRST], SEEDS))
        others = [(seed, what) for seed in SEEDS for what in MODELS if what not in FIRST]
        list(pool.map(lambda run: _train(run[0], run[1], threads), others))
    results = _measure()
    write_text_atomically(Path("docs/results.json"), json.dumps(results, indent=2) + "\n")
    write_text_atomically(Path("docs/results.md"), _to_markdown(results))
    print(_to_markdown(results))


def _train(seed: int, what: str, threads: str) -> None:
    """One run, a command line of the project."""
    if _find_finished(seed, what) is not None:
        print(f"seed {seed}: {what} is there already", flush=True)
        return
    started = time.monotonic()
    script, arguments = _plan(seed, what)
    _run(script, *arguments, threads=threads, log=f"s{seed}_{what}.txt")
    print(f"seed {seed}: {what} took {time.monotonic() - started:.0f} s", flush=True)


def _plan(seed: int, what: str) -> tuple[str, list[str]]:
    """Script and arguments of one run."""
    changes = [f"seed={seed}", f"output_root={OUTPUT}", "num_workers=0"]
    if what not in FIRST:
        changes.append(f"pretrained_student_weights={OUTPUT}/s{seed}_student_*/weights/best_model.pth")
        changes.append(f"teacher_weights={_name_teacher(seed)}")
    if what == "hard":
        changes += HARD_ONLY
    if what == "two":
        other = SEEDS[(SEEDS.index(seed) + 1) % len(SEEDS)]
        teachers = [{"model": "tf_efficientnet_lite2", "weights": _name_teacher(one)} for one in (seed, other)]
        changes[-1:] = [f"teachers={json.dumps(teachers)}", "teacher_weights=null"]
    script = "train_student_only.py" if what in FIRST else "main_distillation.py"
    config = {"teacher": "configs/demo_teacher.json"}.get(what, "configs/demo.json")
    if what in VARIANTS:
        config = str(_name_config(what))
    return script, [config, "-n", f"s{seed}_{what}", *(word for change in changes for word in ("--set", change))]


def _name_teacher(seed: int) -> str:
    return f"{OUTPUT}/s{seed}_teacher_*/weights/best_model.pth"


def _name_config(variant: str) -> Path:
    return OUTPUT / f"{variant}.json"


def _write_config(variant: str) -> None:
    """configs/demo.json with its loss in native form and what the variant adds."""
    keys = {key: value for key, value in read_config_file(Path("configs/demo.json")).items() if key not in FLAT_KEYS}
    write_text_atomically(_name_config(variant), json.dumps(keys | VARIANTS[variant], indent=2) + "\n")


def _run(*arguments: str, threads: str | None = None, log: str | None = None) -> None:
    environment = {**os.environ, **({"OMP_NUM_THREADS": threads} if threads else {})}
    OUTPUT.mkdir(parents=True, exist_ok=True)
    if log is None:
        done = subprocess.run([sys.executable, *arguments], env=environment, check=False)
    else:
        with open(OUTPUT / log, "w", encoding="utf-8") as file:
            done = subprocess.run(
                [sys.executable, *arguments], env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
            )
    if done.returncode != 0:
        raise UserError(
            Problem(
                where=" ".join(arguments),
                what=f"ended with exit code {done.returncode}",
                remedy=f"read {OUTPUT / log}" if log else "see above",
            )
        )


def _find_finished(seed: int, what: str) -> Path | None:
    """The newest run of this name that has every epoch and was made with the very config of today."""
    script, arguments = _plan(seed, what)
    stage = 1 if script == "train_student_only.py" else 2
    wanted = parse_command_line(arguments, stage=stage, find_task=find_task).config
    for folder in sorted(OUTPUT.glob(f"s{seed}_{what}_*/"), reverse=True):
        metrics = MetricsFile(folder / "logs" / "metrics.csv").read()
        unchanged = not compare_configs(load_run_config(folder, find_task), wanted)
        if unchanged and len(metrics) == wanted.training.epochs:
            return folder
    return None


def _measure() -> dict[str, Any]:
    """AUC on the test people by model: each seed, their mean with an interval over people, and paired differences."""
    tables: dict[str, list[Table]] = {name: [] for name in MODELS}
    validation: dict[str, list[float]] = {name: [] for name in MODELS}
    for name in MODELS:
        for seed in SEEDS:
            folder = _find_finished(seed, name)
            assert folder is not None, f"seed {seed} {name} has just been trained"
            trained = load_trained(folder / "weights" / "best_model.pth")
            tables[name].append(score_people(trained, "test"))
            validation[name].append(float(trained.about["val_auc"]))
    return {
        "protocol": {
            "test_people": len(np.unique(tables["teacher"][0]["group"])),
            "blends_a_face": BLENDS,
            "seeds": list(SEEDS),
            "metric": "frame-level AUC of real against self-blended faces; mean over seeds; 95 % intervals "
            "over people and seeds, the same people for all models",
            "selection": "best validation AUC, on other people",
        },
        "models": {
            name: {
                "title": MODELS[name],
                "test_auc_by_seed": [AUC.value(table) for table in of_seeds],
                "val_auc_by_seed": validation[name],
                "test_auc": _to_json(compute_interval(AUC, of_seeds, rounds=2000)),
            }
            for name, of_seeds in tables.items()
        },
        "differences": {
            f"{one} - {other}": _to_json(compute_paired(AUC, tables[one], tables[other], rounds=2000))
            for one, other in DIFFERENCES
        },
    }


def _to_json(interval: Estimate) -> dict[str, float | None]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _to_markdown(results: dict[str, Any]) -> str:
    protocol = results["protocol"]
    lines = [
        "# Results of the demo, three seeds",
        "",
        f"Written by `make results`. {protocol['test_people']} test people, used neither for training nor tuning nor "
        f"selection; each real face once, and {protocol['blends_a_face']} self-blended fakes of it. Frame-level AUC, "
        f"mean of {len(protocol['seeds'])} seeds, 95 % interval over people and seeds. Every row below the student's "
        "takes the same number of further steps from it; the additions' settings (`demo/results.py`) were not tuned.",
        "",
        "| Model | Test AUC [95 %] | by seed | Val AUC by seed (chose the checkpoint) |",
        "|---|---|---|---|",
    ]
    for model in results["models"].values():
        auc = model["test_auc"]
        lines.append(
            f"| {model['title']} | {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}] | "
            f"{_list(model['test_auc_by_seed'])} | {_list(model['val_auc_by_seed'])} |"
        )
    lines += ["", "| Difference, paired | AUC [95 %] | |", "|---|---|---|"]
    for name, difference in results["differences"].items():
        interval = f"{difference['value']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
        lines.append(f"| {name} | {interval} | {_place(difference)} |")
    lines += ["", "Intervals hold the spread over people and over seeds."]
    return "\n".join([*lines, "", _write_verdict(results["differences"]["distill - hard"]), ""])


def _place(difference: dict[str, float]) -> str:
    return "above 0" if difference["low"] > 0 else "below 0" if difference["high"] < 0 else "within noise"


def _write_verdict(gain: dict[str, float]) -> str:
    """The verdict in one sentence, as the interval has it."""
    if gain["low"] > 0:
        verdict = "distillation helped: the interval of its gain over hard labels for as many steps lies above 0"
    elif gain["high"] < 0:
        verdict = "distillation hurt: the interval of its difference to hard labels for as many steps lies below 0"
    else:
        verdict = "within noise: the interval of the difference to hard labels for as many steps contains 0"
    return f"**Verdict: {verdict}** ({gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}])."


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


if __name__ == "__main__":
    with exit_codes():
        main()
