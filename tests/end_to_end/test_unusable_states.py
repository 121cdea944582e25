"""A resume that meets damaged logs or a saved state that cannot be used: no trifle costs a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import without_permission
from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
from workplace import STAGE_1, TINY, Ended, Workplace

CONFIG = "configs/tiny.json"
STEPS_PER_EPOCH = 8
Change = Callable[[dict[str, Any], dict[str, Any]], object]  # of tensors and description


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Path:
    """A run stopped in the middle of its second epoch: the last save and the one before are whole; read only."""
    place = Workplace(tmp_path_factory.mktemp("begun"))
    (place / "data").mkdir()
    (place / "data/labelled").symlink_to(labelled_root)
    (place / CONFIG).write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        stop_at_step(patch, STEPS_PER_EPOCH + 4)
        assert place.call(STAGE_1, CONFIG, "-n", "first").code == 130
    return place.folder


def stop_at_step(patch: pytest.MonkeyPatch, wanted: int) -> None:
    """This process gets Ctrl-C while it takes that step, counted from 1."""
    from sharpstudent.train.step import TrainStep

    take, taken = TrainStep.__call__, []

    def take_and_stop(self: TrainStep, *args: Any) -> object:
        taken.append(1)
        if len(taken) == wanted:
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, *args)

    patch.setattr(TrainStep, "__call__", take_and_stop)


@pytest.fixture
def place(tiny: Workplace, begun: Path) -> Workplace:
    shutil.copytree(begun / "output", tiny / "output")
    return tiny


def resume(place: Workplace) -> Ended:
    return place.call(STAGE_1, "--resume", "first")


def weights_of(place: Workplace) -> Path:
    return place.find_run("first") / "weights"


def change_state(path: Path, change: Change) -> None:
    state = load_checkpoint(path)
    change(state.tensors, state.about)
    save_checkpoint(path, state.tensors, about=state.about)


def set_position(**values: Any) -> Change:
    return lambda tensors, about: about["position"].update(values)


def spoil_weight(tensors: dict[str, Any], _: object) -> None:
    weight = next(iter(tensors["model"].values()))
    weight[(0,) * weight.ndim] = float("nan")


def shorten_momentum(tensors: dict[str, Any], _: object) -> None:
    slots = next(iter(tensors["optimizer"]["base"]["state"].values()))
    name = next(name for name, value in slots.items() if value.ndim)
    slots[name] = torch.zeros(3)


MALFORMED: dict[str, Change] = {
    "no position": lambda tensors, about: about.pop("position"),
    "position is a list": lambda tensors, about: about.update(position=[1, 2]),
    "epoch is text": set_position(epoch="2"),
    "epoch is 0": set_position(epoch=0),
    "epoch is a fraction": set_position(epoch=1.5),
    "epoch beyond the end": set_position(epoch=10**30),
    "step is negative": set_position(step=-1),
    "sums are text": set_position(sums={"loss": "low"}),
    "watch is a number": set_position(watch=3),
    "no selection": lambda tensors, about: about.pop("selection"),
    "selection is a list": lambda tensors, about: about.update(selection=[]),
    "kept epoch without a value": lambda tensors, about: about["selection"].update(kept=[{"epoch": 1}]),
    "kept epoch of text": lambda tensors, about: about["selection"].update(kept=[{"epoch": "1", "value": 0.5}]),
    "no optimizer": lambda tensors, about: tensors.pop("optimizer"),
    "optimizer is a tensor": lambda tensors, about: tensors.update(optimizer=torch.zeros(2)),
    "momentum of another shape": shorten_momentum,
    "no random states": lambda tensors, about: tensors.pop("rng"),
    "random state cut off": lambda tensors, about: tensors["rng"].update(torch=torch.zeros(3, dtype=torch.uint8)),
    "random state of Python is text": lambda tensors, about: tensors["rng"].update(python="x"),
    "model is a list": lambda tensors, about: tensors.update(model=[1]),
    "a weight is NaN": spoil_weight,
}


class _Restored(Exception):
    """The run is restored, and about to go on."""


ORDINARY = ("no position", "epoch is text", "no selection", "no optimizer", "no random states", "a weight is NaN")


@pytest.mark.parametrize(
    "kind", [kind if kind in ORDINARY else pytest.param(kind, marks=pytest.mark.slow) for kind in MALFORMED]
)
def test_a_malformed_last_state_falls_back_to_the_one_before(
    place: Workplace, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.train import trainer

    def stop(*_: object) -> None:
        raise _Restored

    monkeypatch.setattr(trainer.Trainer, "_fit", stop)
    change_state(weights_of(place) / "last.pth", MALFORMED[kind])
    with pytest.raises(_Restored):
        resume(place)
    log = (place.find_run("first") / "logs/losses.logs").read_text()
    assert "last.pth is no state that a run can go on from" in log
    assert "going on from last_previous.pth" in log
    assert "weights/last.pth.damaged" in "\n".join(place.list_output())


def test_two_malformed_states_are_one_message_and_change_nothing(place: Workplace) -> None:
    for name in ("last.pth", "last_previous.pth"):
        change_state(weights_of(place) / name, set_position(epoch="2"))
    before = place.list_output()
    ended = resume(place)
    assert ended.code == 2
    assert ended.err.count("position: epoch: Input should be a valid integer") == 2
    assert "restore weights/last.pth from a copy" in ended.err
    assert place.list_output() == before


def test_a_state_of_a_newer_version_is_named_and_nothing_is_changed(place: Workplace) -> None:
    change_state(weights_of(place) / "last.pth", set_position(momentum_of_the_average=1))
    before = place.list_output()
    ended = resume(place)
    assert ended.code == 2
    assert "was saved by a newer version of this program" in ended.err
    assert "momentum_of_the_average" in ended.err
    assert place.list_output() == before


def test_the_best_model_copied_over_the_last_state_falls_back(place: Workplace) -> None:
    weights = weights_of(place)
    shutil.copyfile(weights / "best_model.pth", weights / "last.pth")
    ended = resume(place)
    assert ended.code == 0, ended.err
    assert "it lacks 'position'; going on from last_previous.pth" in ended.out


def test_a_run_whose_last_state_may_not_be_read_goes_on_from_the_one_before(
    place: Workplace, labelled_root: Path
) -> None:
    """As an ordinary user: the tests may be run by root, whom no mode stops."""
    for folder in (*place.folder.rglob("*/"), place.folder):
        folder.chmod(0o777)
    for file in (place.folder / "output").rglob("*.*"):
        file.chmod(0o666)
    for folder in (labelled_root, labelled_root.parent):
        folder.chmod(0o755)
    last = weights_of(place) / "last.pth"
    with without_permission(last):
        ended = resume(place)
        assert ended.code == 0, ended.err
        assert "Permission denied" in ended.out
        assert "going on from last_previous.pth" in ended.out
        assert "last.pth.damaged" in ended.out
    assert load_checkpoint(weights_of(place) / "last.pth").about["position"]["epoch"] == 3


@pytest.mark.parametrize("name", ["losses.logs", "metrics.csv"])
@pytest.mark.parametrize(
    "damage",
    [
        "one high bit",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("every bit of a line", "a folder", "empty", "header")
        ),
    ],
)
def test_no_damage_to_a_log_costs_a_run(place: Workplace, name: str, damage: str) -> None:
    log = place.find_run("first") / "logs" / name
    whole = log.read_bytes()
    if damage == "a folder":
        log.unlink()
        log.mkdir()
    else:
        first, middle = whole.partition(b"\n")[0], len(whole) - 20
        log.write_bytes(
            {
                "one high bit": whole[:middle] + bytes([whole[middle] | 0x80]) + whole[middle + 1 :],
                "every bit of a line": bytes(255 - byte for byte in first) + whole[len(first) :],
                "empty": b"",
                "header": b"x" + whole,
            }[damage]
        )
    ended = resume(place)
    assert ended.code == 0, ended.err
    assert "Epoch 2/2" in (place.find_run("first") / "logs/losses.logs").read_text()
    rows = (place.find_run("first") / "logs/metrics.csv").read_text().splitlines()
    assert rows[0].startswith("epoch,")
    assert rows[-1].startswith("2,")


def test_the_json_beside_a_state_may_be_anything(place: Workplace) -> None:
    for content in ("[" * 100_000, "[]", "{", json.dumps({"sha256": 1, "contents": 2, "about": 3})):
        (weights_of(place) / "last.pth.json").write_text(content)
        assert load_checkpoint(weights_of(place) / "last.pth").about["position"]["epoch"] == 2
