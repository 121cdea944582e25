"""Runs that the code of November 2026 left behind are resumed, built upon and evaluated; their losses are reproduced.

The runs are in tests/fixtures/run_2026_11, whose README.md says what they are and how far the numbers can be trusted.
Since then a batch keeps the order of its samples, and dropout falls on other rows. What a run comes to is tested twice:
against the numbers of November with batches in the order of November, and against numbers of its own as it is now.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from workplace import ROOT, STAGE_1, STAGE_2, Ended, Workplace

FIXTURE = ROOT / "tests/fixtures/run_2026_11"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
SINCE = json.loads((FIXTURE / "expected_since_collate.json").read_text())
EVALUATE, COMPARE = str(ROOT / "evaluate_model.py"), "compare_models.py"
TOLERANCE = 1e-4  # another processor rounds differently
ROLES = {"--teacher": "teacher", "--before": "first", "--distilled": "second"}
JUDGING = ("--data", "data/labelled", "--crops", "--rounds", "20", "--workers", "0", "--device", "cpu")


def make_place(folder: Path) -> Workplace:
    """A user's folder with the data, the config and the runs as they were left."""
    place = Workplace(folder)
    for name in ("data", "output"):
        shutil.copytree(FIXTURE / name, place / name)
    shutil.copyfile(FIXTURE / "tiny.json", place / "tiny.json")
    return place


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return make_place(tmp_path)


def use_order_of_november(patch: pytest.MonkeyPatch) -> None:
    """Rows of label 0 first, then those of label 1, each in the order of the samples."""
    from sharpstudent.core.types import Batch
    from sharpstudent.tasks.deepfake.task import DeepfakeTask

    collate = DeepfakeTask.collate

    def collate_by_label(self: DeepfakeTask, samples: Any, groups: Any) -> Batch:
        batch = collate(self, samples, groups)
        order = batch.targets["label"].argsort(stable=True)
        return replace(
            batch,
            inputs={name: tensor[order] for name, tensor in batch.inputs.items()},
            targets={name: tensor[order] for name, tensor in batch.targets.items()},
            rows={name: tuple(values[row] for row in order.tolist()) for name, values in batch.rows.items()},
        )

    patch.setattr(DeepfakeTask, "collate", collate_by_label)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, Ended]:
    """The unfinished run, gone on with to its end; read only."""
    place = make_place(tmp_path_factory.mktemp("november"))
    return place, place.call(STAGE_2, "--resume", "second")


def find(place: Workplace, name: str) -> str:
    return str(place.find_run(name).relative_to(place.folder))


def read_rows(run: Path) -> list[dict[str, Any]]:
    """metrics.csv, numbers as such."""

    def to_value(cell: str) -> float | str:
        return float(cell) if cell[:1].isdigit() or cell[:1] == "-" else cell

    with (run / "logs/metrics.csv").open(newline="") as file:
        return [{name: to_value(cell) for name, cell in row.items()} for row in csv.DictReader(file)]


def read_losses(run: Path) -> list[float]:
    """The loss of every step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "logs/tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars("train/loss")]


def assert_has_all_of(new: Any, old: Any, where: str = "") -> None:
    """Every key of `old` with a value of that kind, and every number within the tolerance; new keys may be there.

    The ends of intervals are computed otherwise since then (decision 12), stills are no videos, and notes say more.
    """
    if isinstance(old, Mapping):
        wanted = {name for name in old if not name.startswith("val_video_auc")}  # of stills, there
        assert wanted <= new.keys(), where
        for name in wanted - {"low", "high", "videos", "note", "notes"}:
            assert_has_all_of(new[name], old[name], f"{where}/{name}")
    elif isinstance(old, list):
        assert len(new) == len(old), where
        for index, value in enumerate(old):
            assert_has_all_of(new[index], value, f"{where}[{index}]")
    elif isinstance(old, float | int):
        assert new == pytest.approx(old, abs=TOLERANCE, rel=TOLERANCE), where
    else:
        assert type(new) is type(old), where


def test_the_unfinished_run_resumes_after_its_last_step(
    resumed: tuple[Workplace, Ended],
) -> None:
    place, ended = resumed
    assert ended.code == 0, ended.out + ended.err
    epoch, step = EXPECTED["unfinished_at"]
    assert f"at epoch {epoch}, step {step}" in ended.out
    rows = read_rows(place.find_run("second"))
    assert_has_all_of(rows[:1], EXPECTED["stage2_metrics"][:1])  # the epoch that old code finished
    assert len(rows) == len(EXPECTED["stage2_metrics"])
    assert_has_all_of(rows, SINCE["resumed_metrics"])
    assert [row["selected"] for row in rows] == [row["selected"] for row in SINCE["resumed_metrics"]]


def test_with_batches_in_the_order_of_november_it_ends_with_the_metrics_of_a_run_that_nothing_interrupted(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_order_of_november(monkeypatch)
    ended = place.call(STAGE_2, "--resume", "second")
    assert ended.code == 0, ended.err
    rows = read_rows(place.find_run("second"))
    assert_has_all_of(rows, EXPECTED["stage2_metrics"])
    assert [row["selected"] for row in rows] == [row["selected"] for row in EXPECTED["stage2_metrics"]]


def test_a_resumed_run_of_november_finishes_and_writes_complete_checkpoints(resumed: tuple[Workplace, Ended]) -> None:
    place, _ = resumed
    folder = place.find_run("second") / "weights"
    last, best = (torch.load(folder / name, weights_only=True) for name in ("last.pth", "best_model.pth"))
    assert {"model", "optimizer", "average", "rng"} <= last.keys()
    assert best["model"].keys() == last["model"].keys()
    again = place.call(STAGE_2, "--resume", "second")
    assert again.code == 0, again.err
    assert "nothing left to do" in again.out


@pytest.mark.parametrize("name", ["teacher", "first", "second"])
def test_the_checkpoints_of_november_are_complete(place: Workplace, name: str) -> None:
    from sharpstudent.checkpoint.store import load_checkpoint

    files = sorted((place.find_run(name) / "weights").glob("*.pth"))
    assert files
    for file in files:
        loaded = load_checkpoint(file)
        assert loaded.notes == ()
        assert loaded.about["architecture"] == "test_efficientnet"


ORDERS = pytest.mark.parametrize("order", ["of november", "of the samples"])


def choose_order(order: str, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Batches in that order; what is expected of them."""
    if order == "of november":
        use_order_of_november(patch)
        return EXPECTED
    return SINCE


@ORDERS
def test_stage_1_takes_the_steps_that_it_took(place: Workplace, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    expected = choose_order(order, monkeypatch)["stage1_losses"]
    ended = place.call(STAGE_1, "tiny.json", "-n", "anew")
    assert ended.code == 0, ended.err
    losses = read_losses(place.find_run("anew"))
    assert losses[: EXPECTED["steps_per_epoch"]] == pytest.approx(expected, abs=TOLERANCE)


@ORDERS
def test_stage_2_starts_from_the_student_of_november_and_takes_the_same_steps(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    expected = choose_order(order, monkeypatch)["stage2_losses"]
    ended = place.call(STAGE_2, "tiny.json", "-n", "anew")
    assert ended.code == 0, ended.err
    assert "0 missing, 0 unexpected" in ended.out
    losses = read_losses(place.find_run("anew"))
    assert losses[: EXPECTED["steps_per_epoch"]] == pytest.approx(expected, abs=TOLERANCE)


def test_an_evaluation_of_a_checkpoint_of_november_finds_what_it_found_then(place: Workplace) -> None:
    ended = place.call(EVALUATE, find(place, "second"), "--out", "evaluated", *JUDGING)
    assert ended.code == 0, ended.out + ended.err
    new, old = (json.loads((folder / "evaluated/results.json").read_text()) for folder in (place.folder, FIXTURE))
    assert new["schema"] == old["schema"]
    for name in ("data", "models", "mistakes", "training", "config"):
        assert_has_all_of(new[name], old[name], name)


def test_results_of_november_match_the_published_schema() -> None:
    results = json.loads((FIXTURE / "evaluated/results.json").read_text())
    jsonschema.validate(results, json.loads((ROOT / "docs/results.schema.json").read_text()))


def test_checkpoints_of_november_are_compared_with_one_another(place: Workplace) -> None:
    models = [word for role, name in ROLES.items() for word in (role, find(place, name))]
    ended = place.call(COMPARE, *models, "--out", "compared", "--no-costs", *JUDGING)
    assert ended.code == 0, ended.out + ended.err
    results = json.loads((place / "compared/results.json").read_text())
    assert [model["role"] for model in results["models"]] == ["teacher", "before", "distilled"]
