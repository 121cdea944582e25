"""The callbacks of Weights & Biases and MLflow: what stand-ins get, and what the packages themselves write offline."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sharpstudent import Callback, MlflowLogger, StageInfo, UserError, WandbLogger

STEPS = 3


def make_info(folder: Path, *, epoch: int = 1) -> StageInfo:
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    config = {"seed": 7, "student": "tiny", "terms": [{"term": "hard"}]}
    return StageInfo(folder, 2, "run", config, epochs=2, steps_per_epoch=STEPS, epoch=epoch, step=0)


def tell(callback: Callback, info: StageInfo) -> None:
    """What a run of two epochs tells, from the epoch of `info` on."""
    callback.on_start(info)
    for epoch in range(info.epoch, info.epochs + 1):
        for step in range(info.steps_per_epoch):
            callback.on_step(epoch, step, {"loss": 1.0 / epoch, "skipped": 0.0})
        callback.on_validation(epoch, {"val_auc": 0.5})
        callback.on_epoch(epoch, {"val_auc": 0.5 + epoch / 10})
    callback.on_end(2, 0.7)


class StandIn(SimpleNamespace):
    """Takes the place of both packages, and keeps what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.summary: dict[str, float] = {}
        self.runs: list[SimpleNamespace] = []
        self.log_param = self.log_metric = lambda *words, **more: self.calls.append(("log", (*words, more)))

    def init(self, **words: Any) -> StandIn:
        self.calls.append(("init", words))
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append(("log", (values, step)))

    def finish(self) -> None:
        self.calls.append(("finish", None))

    def MlflowClient(self, uri: str | None) -> StandIn:  # noqa: N802, the package's name
        self.calls.append(("client", uri))
        return self

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return "1"

    def search_runs(self, experiments: list[str], wanted: str, max_results: int) -> list[SimpleNamespace]:
        return list(self.runs)

    def create_run(self, experiment: str, run_name: str) -> SimpleNamespace:
        self.runs.append(SimpleNamespace(info=SimpleNamespace(run_id=f"id of {run_name}")))
        return self.runs[-1]

    def set_terminated(self, run: str) -> None:
        self.calls.append(("finish", run))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    found = StandIn()
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, found)  # type: ignore[arg-type]
    return found


def test_wandb_gets_the_config_every_tenth_step_each_epoch_and_the_best(stand_in: StandIn, tmp_path: Path) -> None:
    info = make_info(tmp_path / "run_7")
    tell(WandbLogger("faces", every=2, mode="offline"), info)
    (_, words), *rest = stand_in.calls
    assert (words["project"], words["mode"], words["id"], words["resume"]) == ("faces", "offline", "run_7", "allow")
    assert words["config"]["seed"] == 7
    sent = [value for name, value in rest if name == "log"]
    assert [step for _, step in sent] == [1, 3, 3, 4, 6, 6]  # never falls: the package refuses earlier steps
    assert sent[2][0] == {"epoch": 1, "val_auc": 0.6}
    assert stand_in.summary == {"best_epoch": 2, "best_value": 0.7}
    assert rest[-1][0] == "finish"


def test_mlflow_finds_the_run_of_a_resumed_one(stand_in: StandIn, tmp_path: Path) -> None:
    tell(MlflowLogger("faces", uri="folder", every=1), make_info(tmp_path / "run_7"))
    first = [words for name, words in stand_in.calls if name == "log"]
    assert ("id of run_7", "seed", "7", {}) in first
    assert ("id of run_7", "val_auc", 0.7, {"step": 2}) in first
    assert ("id of run_7", "step/loss", 1.0, {"step": 2}) in first
    stand_in.calls.clear()
    tell(MlflowLogger("faces", uri="folder"), make_info(tmp_path / "run_7", epoch=2))
    again = [words for name, words in stand_in.calls if name == "log"]
    assert len(stand_in.runs) == 1
    assert not any(words[1] == "seed" for words in again)
    assert stand_in.calls[-1] == ("finish", "id of run_7")


@pytest.mark.parametrize(("name", "logger"), [("wandb", WandbLogger), ("mlflow", MlflowLogger)])
def test_a_logger_whose_package_is_missing_names_what_installs_it(
    name: str, logger: type[Callback], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"pip install {name}"):
        logger()


def test_mlflow_itself_keeps_the_numbers_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny, the extra `mlflow`")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    for epoch in (1, 2):
        tell(MlflowLogger(uri=uri, every=1), make_info(tmp_path / "run_7", epoch=epoch))
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("sharpstudent").experiment_id])
    assert run.data.params["student"] == "tiny"
    assert run.data.metrics["best_value"] == 0.7
    assert run.info.status == "FINISHED"


@pytest.mark.slow  # the package starts a service of its own
def test_wandb_itself_writes_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs the extra `wandb`")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tell(WandbLogger(), make_info(tmp_path / "run_7"))
    assert list((tmp_path / "run_7/logs").rglob("run-run_7.wandb"))
