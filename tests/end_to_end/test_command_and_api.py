"""The command `sharpstudent`, and the Python API with its callbacks, on drawn faces."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import sharpstudent
import torch
from sharpstudent import commands
from sharpstudent.checkpoint.store import save_checkpoint
from sharpstudent.core import io as core_io
from sharpstudent.core.naming import CALLING
from sharpstudent.models.vision import build_classifier
from sharpstudent.train.callbacks import CsvSteps
from workplace import ROOT, STAGE_1, Ended, Workplace

CONFIG = "configs/tiny.json"


@pytest.fixture
def here(tiny: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.chdir(tiny.folder)
    return tiny


@pytest.fixture(autouse=True)
def _scripts_again() -> Iterator[None]:
    """Later tests of this process call scripts again."""
    yield
    CALLING.list_commands = None


@pytest.fixture
def small_model(here: Workplace) -> Path:
    """A checkpoint with thresholds, of random weights."""
    from test_predict import make_about

    about = make_about(0.5, 0.1)
    model = build_classifier("test_efficientnet", classes=2, dropout=0.2)
    path = here / "model.pth"
    save_checkpoint(path, {"model": model.state_dict()}, about=about)
    return path


def release_locks() -> None:
    """As the end of a process does."""
    for lock in list(core_io._HELD.values()):
        lock.release()


def call(*words: str) -> Ended:
    """`sharpstudent WORDS` in this process."""
    out, err, code, before = io.StringIO(), io.StringIO(), 0, sys.argv
    try:
        sys.argv = ["sharpstudent", *words]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            commands.main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return Ended(code, out.getvalue(), err.getvalue())


def test_every_script_has_a_subcommand_and_its_help_names_no_script() -> None:
    assert {path.name for path in ROOT.glob("*.py")} - {"export_for_mobile.py"} == {
        script.partition(" ")[0] for script in commands.list_script_commands()
    }
    for command in sorted({words.removeprefix("sharpstudent ") for words in commands.list_script_commands().values()}):
        told = call(command, "--help")
        assert told.code == 0, told.err
        assert "usage: sharpstudent " in told.out, command
        assert "python " not in told.out.replace("python package", ""), command


def test_without_words_it_lists_its_commands_and_those_of_tasks() -> None:
    told = call()
    assert told.code == 0
    for command in (*commands.COMMANDS, "prepare", "swaps"):
        assert f"\n  {command} " in told.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("distil", "x"), "did you mean 'distill'?"),
        (("predict", "deepfake-smal", "x.jpg"), "models that come with the package"),
        (("train", "nothing.json", "-n", "x"), "nothing.json"),
        (("train", "configs/demo.json"), "sharpstudent train configs/config_SBI.json -n "),
        (("check", "no_such_folder"), "no_such_folder"),
    ],
)
def test_a_mistake_is_one_message_with_a_command_that_can_be_pasted(
    words: tuple[str, ...], said: str, here: Workplace
) -> None:
    ended = call(*words)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert ".py" not in ended.err.replace("no_such", "")


def test_the_version_and_the_tasks_are_listed() -> None:
    assert call("--version").out.startswith("sharpstudent ")
    listed = call("tasks", "--terms").out
    assert "deepfake\n    metric  AUC\n    config  configs/config_SBI.json" in listed
    assert "kd" in listed.rpartition("terms of every task")[2]
    targets = (ROOT / "Makefile").read_text()
    demos = re.findall(r"^    demo    make (.+)$", listed, re.MULTILINE)
    assert len(demos) == len(re.findall(r"^    metric ", listed, re.MULTILINE)) >= 1
    assert all(f"\n{demo}: setup" in targets for demo in demos)
    assert "arms" not in listed.partition("terms of every task")[0]  # the arms of an ablation are no config


def test_a_config_of_the_package_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("configs/demo.json", "demo.json", "demo"):
        ended = call("distill", name, "--print-config")
        assert ended.code == 0, ended.err
        assert "tf_efficientnet_lite0" in ended.out


def test_check_tells_a_config_from_a_run(here: Workplace) -> None:
    assert "stage 2: task deepfake" in call("check", CONFIG).out
    (here / "broken.json").write_text('{"epochs": 3}')
    assert call("check", "broken.json").code == 2


class Noting(sharpstudent.Callback):
    """Notes what it is told, and does what must not matter to the run."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.losses: list[float] = []

    def on_start(self, info: sharpstudent.StageInfo) -> None:
        self.events.append(f"start {info.stage} {info.epoch} {info.step}")

    def on_step(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        self.losses.append(values["loss"])
        torch.rand(7)
        random.random()
        torch.set_grad_enabled(False)
        values.clear()  # type: ignore[attr-defined]

    def on_validation(self, epoch: int, metrics: Mapping[str, float]) -> None:
        assert "val_auc" in metrics

    def on_epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        self.events.append(f"epoch {epoch}")

    def on_end(self, best_epoch: int, best_value: float) -> None:
        self.events.append("end")


def read_metrics(folder: Path) -> str:
    return (folder / "logs" / "metrics.csv").read_text()


def test_a_run_with_callbacks_has_the_numbers_of_one_without(here: Workplace) -> None:
    noting = Noting()
    with contextlib.redirect_stdout(io.StringIO()):
        run = sharpstudent.train_student_only(CONFIG, name="told", callbacks=[noting, CsvSteps()])
    assert here.call(STAGE_1, CONFIG, "-n", "plain").code == 0
    assert read_metrics(run.folder) == read_metrics(here.find_run("plain"))
    assert noting.events == ["start 1 1 0", "epoch 1", "epoch 2", "end"]
    steps = (run.folder / "logs/steps.csv").read_text().splitlines()
    assert len(steps) == len(noting.losses) + 1
    assert run.best_model.is_file()
    assert run.metrics["auc"] == run.best_value


class Failing(sharpstudent.Callback):
    def on_epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        raise RuntimeError("no disk for my plots")


def test_an_exception_of_a_callback_ends_the_run_resumable_or_is_reported_by_key(here: Workplace) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        with pytest.raises(sharpstudent.UserError, match="no disk for my plots"):
            sharpstudent.train_student_only(CONFIG, name="stops", callbacks=[Failing()])
        stopped = here.find_run("stops")
        release_locks()
        resumed = sharpstudent.train_student_only(CONFIG, name="stops", resume=stopped)
        reported = sharpstudent.train_student_only(
            CONFIG, name="goes_on", set={"callback_errors": "report"}, callbacks=[Failing()]
        )
    assert read_metrics(resumed.folder) == read_metrics(reported.folder)
    assert out.getvalue().count("the run goes on without this callback") == 1


def test_a_loaded_model_answers_as_predict_py_does(here: Workplace, small_model: Path) -> None:
    (here / "real.npz").write_bytes(b"no picture")
    model = sharpstudent.load(small_model)
    with pytest.raises(sharpstudent.UserError):
        model.predict("real.npz")
    with pytest.raises(sharpstudent.UserError, match="does not exist"):
        sharpstudent.load("output/none")
    picture = next((here / "data/labelled").rglob("*.png"))
    answer = model.predict(picture)
    told = json.loads(here.call("predict.py", str(small_model), str(picture), "--json").out)
    assert (answer.outcome, answer.probability, answer.sentence) == (told["outcome"], told["score"], told["sentence"])


def test_importing_it_loads_no_torch_and_a_name_that_is_not_there_is_an_attribute_error() -> None:
    code = "import sharpstudent, sys; assert not {'torch', 'numpy', 'pydantic'} & {*sys.modules}; sharpstudent.nothing"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AttributeError: module 'sharpstudent' has no attribute 'nothing'" in ended.stderr
    assert set(sharpstudent.__all__) == set(dir(sharpstudent))
    for name in sharpstudent.__all__:
        assert getattr(sharpstudent, name).__doc__
