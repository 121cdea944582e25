"""Errors of a task's author in samples and metrics: each ends with exit code 2, and names sample, key and remedy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from workplace import ROOT, STAGE_1, Ended, Workplace

MODULE = """
import sys
sys.path.insert(0, {invented!r})
from dataclasses import replace
import numpy as np
from digits import Digits, DigitsTask
from sharpstudent.task import Metric


class Slipping(Digits):
    def make(self, index, rng):
        sample = super().make(index, rng)
        slips = index % 3 == 0
{make}
        return sample


class SlipTask(DigitsTask):
    metrics = dict(DigitsTask.metrics)

    def open_data(self, *splits):
        return tuple(Slipping(split, self.section) for split in splits)
{task}
"""

AUTHOR_ERRORS = {
    "raises": (
        "        if slips: {}['a']",
        "make raised KeyError",
        "slip_raises.py, line ",
        "UnreadableSample",
    ),
    "shape": (
        "        if slips: sample = replace(sample, inputs={'image': sample.inputs['image'][..., 1:]})",
        "inputs 'image': has another shape than in digit",
        "shape (1, 1, 8, ",
        "resize, crop or pad",
    ),
    "axis": (
        "        if slips: sample = replace(sample, inputs={'image': sample.inputs['image'][0, 0]})",
        "inputs 'image': has no row axis",
        "shape (8, 8)",
        "value[None]",
    ),
    "scalar": (
        "        if slips: sample = replace(sample, targets={'label': np.int64(3)})",
        "targets 'label': has no row axis",
        "shape ()",
        "value[None]",
    ),
    "some": (
        "        if slips: sample = replace(sample, targets={})",
        "targets: are not named as those of digit",
        "none",
        "the same targets for every sample",
    ),
    "name": (
        "        sample = replace(sample, targets={'lable': sample.targets['label']})",
        "target 'label' of digit",
        "got: lable",
        "example_batch",
    ),
    "kind": (
        "        sample = replace(sample, targets={'label': sample.targets['label'].astype(np.float32)})",
        "target 'label' of digit",
        "torch.float32",
        "example_batch",
    ),
    "range": (
        "        sample = replace(sample, targets={'label': sample.targets['label'] + 7})",
        "is none of the task's classes",
        "expected: 0 to 9",
        "`classes`",
    ),
}


@pytest.fixture(autouse=True)
def _kept_modules() -> Iterator[None]:
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name == "digits" or name.startswith("slip_")]:
        sys.modules.pop(name)


def run(folder: Path, name: str, *words: str, make: str = "        pass", task: str = "    pass") -> Ended:
    """Stage 1 of the digits with an error in its samples or its task."""
    folder.mkdir(exist_ok=True)
    place = Workplace(folder)
    invented = str(ROOT / "tests" / "invented")
    (place / f"slip_{name}.py").write_text(MODULE.format(invented=invented, make=make, task=task))
    (place / "slip.json").write_text(
        f'{{"task": "slip_{name}:SlipTask", "data": {{"noise": 0.2, "share": 0.1}}, "student": "narrow", "epoch": 1, '
        '"batch_size": 16, "lr": 0.03, "num_workers": 0, "device": "cpu", "report": false}'
    )
    return place.call(STAGE_1, "slip.json", "-n", "run", *words)


@pytest.mark.parametrize("words", [(), ("--dry-run",), ("--set", "num_workers=1")], ids=["run", "dry run", "worker"])
@pytest.mark.parametrize("name", AUTHOR_ERRORS)
def test_an_error_in_samples_names_sample_key_and_remedy(name: str, words: tuple[str, ...], tmp_path: Path) -> None:
    make, *expected = AUTHOR_ERRORS[name]
    ended = run(tmp_path, name, *words, make=make)
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    for word in ("digit ", "got: ", "remedy: ", *expected):
        assert word in ended.err


def test_a_dry_run_computes_the_metrics_once(tmp_path: Path) -> None:
    ended = run(tmp_path, "none", "--dry-run")
    assert ended.code == 0, ended.err
    assert "dry run: metrics on these 16 training rows, to see that they can be computed: accuracy 0." in ended.out


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("column", "    metrics = {'f': Metric(lambda table, counts: table['sex'].mean())}", "SlipTask.metrics['f']: "),
        ("rows", "    def rows(self, outputs, batch): return {'x': outputs['x']}", "SlipTask.rows: raised KeyError"),
    ],
)  # fmt: skip
def test_a_dry_run_finds_an_error_in_the_metrics(name: str, task: str, expected: str, tmp_path: Path) -> None:
    ended = run(tmp_path, name, "--dry-run", task=task)
    assert ended.code == 2, ended.out
    assert expected in ended.err


def test_a_selection_metric_without_a_value_is_reported_by_a_dry_run_and_ends_a_run_with_the_remedy(
    tmp_path: Path,
) -> None:
    task = "    metrics = {'f': Metric(lambda table, counts: float('nan')), **DigitsTask.metrics}"
    ended = run(tmp_path / "dry", "nan_dry", "--dry-run", task=task)
    assert ended.code == 0
    assert "f, which selects the best epoch, has no value here: it is undefined on these 16 samples" in ended.out
    ended = run(tmp_path / "run", "nan_run", task=task)
    assert ended.code == 3
    assert "val_f, which selects the best epoch, has no value: it is undefined on these" in ended.err
    assert "--set selection_metric=accuracy (with a value here: accuracy, log_loss)" in ended.err
