"""A run that starts from another run: what it keeps, what it says of its start, and that it resumes without it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from sharpstudent.core.io import compute_sha256
from test_resume import assert_same_run, make_place, make_signal
from workplace import STAGE_1, STAGE_2, Ended, Workplace

CONFIG, SHARE = "configs/tiny.json", 0.25
HELD = (
    *("--set", f"start_share={SHARE}", "--set", "l2_start=0.5"),
    *("--set", "ema_decay=0.9"),
)


def tune(place: Workplace, *words: str) -> Ended:
    return place.call(STAGE_1, CONFIG, "-n", "mine", "--start", "output/first", *HELD, *words)


def make_started(folder: Path, labelled_root: Path) -> Workplace:
    """A place with the run `first`, in a folder that another place can have, too."""
    place = make_place(folder, labelled_root)
    assert place.call(STAGE_1, CONFIG, "-n", "first", "--set", "epoch=1").code == 0
    place.find_run("first").rename(place / "output/first")
    return place


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> tuple[Workplace, Ended]:
    place = make_started(tmp_path_factory.mktemp("tuned") / "place", labelled_root)
    ended = tune(place)
    assert ended.code == 0, ended.err
    return place, ended


def test_what_is_kept_is_the_average_with_the_start_and_training_goes_on_from_the_trained_weights(
    tuned: tuple[Workplace, Ended],
) -> None:
    place, _ = tuned
    run = place.find_run("mine")
    last = torch.load(run / "weights/last.pth", weights_only=True)
    first = torch.load(place / "output/first/weights/best_model.pth", weights_only=True)["model"]
    (kept,) = run.glob("weights/2_*.pth")
    stored = torch.load(kept, weights_only=True)
    trained = last["average"]["model"] if json.loads(stored["about"])["selected"] == "ema" else last["model"]
    moved = 0
    for name, tensor in stored["model"].items():
        assert torch.equal(last["start"][name], first[name])
        if tensor.is_floating_point():
            wanted = (1 - SHARE) * trained[name] + SHARE * first[name]
            torch.testing.assert_close(tensor, wanted, rtol=0, atol=1e-6)
            moved += not torch.equal(tensor, trained[name])
        else:
            assert torch.equal(tensor, trained[name])
    assert moved > 10


def test_the_checkpoint_says_from_which_file_and_the_end_says_how_to_see_what_was_forgotten(
    tuned: tuple[Workplace, Ended],
) -> None:
    place, ended = tuned
    about = json.loads((place.find_run("mine") / "weights/best_model.pth.json").read_text())["about"]
    digest = compute_sha256(place / "output/first/weights/best_model.pth")
    assert about["start"] == {"file": "best_model.pth", "sha256": digest}
    run = f"output/{place.find_run('mine').name}"
    assert f"python compare_models.py BEFORE=output/first AFTER={run}\n" in ended.out
    assert f"python compare_models.py BEFORE=output/first AFTER={run} --data SET\n" in ended.out


def test_the_command_at_the_end_compares_before_and_after(tuned: tuple[Workplace, Ended]) -> None:
    place, ended = tuned
    (command,) = (line for line in ended.out.splitlines() if "compare_models.py" in line and "--data" not in line)
    compared = place.call(*command.split()[1:], "--no-costs", "--rounds", "20", "--workers", "0")
    assert compared.code == 0, compared.err
    assert "BEFORE" in compared.out


def test_it_is_resumed_bit_for_bit_when_the_start_is_gone(
    tuned: tuple[Workplace, Ended], tmp_path: Path, labelled_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = tuned
    place = make_started(tmp_path / "place", labelled_root)
    with monkeypatch.context() as patch:
        make_signal(patch, signal.SIGINT, at_step=11)
        assert tune(place).code == 130
    (place / "output/first").rename(place / "output/gone")
    resumed = place.call(STAGE_1, "--resume", "mine")
    assert resumed.code == 0, resumed.err
    assert_same_run(place.find_run("mine"), whole.find_run("mine"))


def test_a_start_that_cannot_be_is_refused_before_anything_is_trained(tuned: tuple[Workplace, Ended]) -> None:
    place, _ = tuned
    without = place.call(STAGE_1, CONFIG, "-n", "x", "--set", "l2_start=0.1")
    assert without.code == 2
    assert "--set start=RUN" in without.err
    other = tune(place, "--set", "image_size=64")
    assert other.code == 2
    assert "add --set image_size=32" in other.err
    stage2 = place.call(STAGE_2, CONFIG, "-n", "x", "--start", "output/first")
    assert stage2.code == 2
    assert "--start" in stage2.err
