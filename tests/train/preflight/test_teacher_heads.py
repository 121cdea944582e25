"""Heads that are fitted before stage 2: stored in the run folder, restored on resume, never fitted twice in one run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from preflight_setup import Pictures, PreflightSetup
from sharpstudent.config.run_config import TeacherSection
from sharpstudent.core.errors import UserError
from sharpstudent.core.random import capture_rng_state
from sharpstudent.core.types import Outputs
from sharpstudent.models.teachers import FrozenTeacher, Named
from sharpstudent.train.preflight import teacher_heads
from sharpstudent.train.preflight.teacher_heads import describe_fits, restore_heads, settle_heads
from sharpstudent.train.validate import Validator
from tiny_models import are_identical
from torch import Tensor, nn

FITTED = TeacherSection(name="x", weights=None, init="imagenet", head="fitted")


class Body(nn.Module):
    """Pools red and green to three features, and has a head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Linear(2, 3)
            self.dropout = nn.Dropout(0.5)
            self.head = nn.Linear(3, 2)
        self.calls = 0

    def forward(self, image: Tensor) -> Outputs:
        self.calls += 1
        return {"logits": self.head(self.dropout(self.body(image[:, :2].mean((2, 3)))))}


@pytest.fixture
def setup(tmp_path: Path) -> PreflightSetup:
    return PreflightSetup(tmp_path / "output", sections=(FITTED,))


class Settled:
    """Teachers with the heads that one start of a run gave them."""

    def __init__(self, setup: PreflightSetup, *models: Any, begun: bool = False) -> None:
        self.lines: list[str] = []
        self.teachers = [FrozenTeacher(model) for model in models or (Body(),)]
        self.named: list[Named] = [(f"teacher {number}", each) for number, each in enumerate(self.teachers, 1)]
        self.validator: Validator = setup.make_validator()
        setup.source.made = []
        self.fitted = settle_heads(self.validator, self.named, must_be_kept=begun, say=self.lines.append)
        self.head = self.teachers[0].head

    @property
    def kept(self) -> Path:
        return self.validator.run.weights_folder / "teacher_head_1.pth"


def test_the_head_knows_what_the_training_set_shows(setup: PreflightSetup) -> None:
    settled = Settled(setup)
    assert settled.fitted == ["teacher 1"]
    assert sorted(setup.source.made) == list(range(20))
    (table,), _ = settled.validator.compute_tables([settled.teachers[0]])
    assert (table["logits"].argmax(1) == table["label"]).all()
    (line,) = settled.lines
    assert line.startswith(
        "teacher 1: head fitted on 20 samples (40 pictures) of the training set, accuracy there 100.0%, strength "
    )
    assert line.endswith(" s")
    assert "chosen on people left out" in line


def test_the_backbone_stays_as_it_is_and_the_head_is_frozen(setup: PreflightSetup) -> None:
    settled = Settled(setup)
    model: Any = settled.teachers[0].model
    assert are_identical(dict(model.body.state_dict()), dict(Body().body.state_dict()))
    assert not any(parameter.requires_grad or parameter.is_inference() for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    assert not settled.head._forward_pre_hooks


def test_fitting_moves_no_random_state_and_is_the_same_twice(setup: PreflightSetup) -> None:
    before = capture_rng_state(), np.random.get_state()[1].tolist()
    one = Settled(setup)
    assert are_identical((capture_rng_state(), np.random.get_state()[1].tolist()), before)
    first = one.kept.read_bytes()
    one.kept.unlink()
    torch.manual_seed(77)
    two = Settled(setup)
    assert two.kept.read_bytes() == first
    assert torch.equal(one.head.weight, two.head.weight)


def test_the_random_head_that_came_with_it_has_no_part_in_it(setup: PreflightSetup) -> None:
    other = Body()
    other.head = nn.Linear(3, 2)
    one = Settled(setup)
    assert Settled(setup, other, begun=True).fitted == []
    assert one.kept.is_file()


def test_a_stored_head_is_restored_to_the_last_bit_and_no_sample_is_made(setup: PreflightSetup) -> None:
    first = Settled(setup)
    again = Settled(setup, begun=True)
    assert again.fitted == []
    assert setup.source.made == []
    assert again.lines == [f"teacher 1: its fitted head is that of {first.kept}"]
    assert again.head.weight.numpy().tobytes() == first.head.weight.numpy().tobytes()
    assert again.head.bias.numpy().tobytes() == first.head.bias.numpy().tobytes()


def test_two_teachers_are_fitted_in_one_pass_and_a_third_keeps_its_own_head(setup: PreflightSetup) -> None:
    setup.sections = (FITTED, replace_section(head="loaded"), replace_section(name="y"))
    own = Body(5)
    settled = Settled(setup, Body(), own, Body(3))
    assert settled.fitted == ["teacher 1", "teacher 3"]
    assert sorted(setup.source.made) == list(range(20))
    assert torch.equal(own.head.weight, Body(5).head.weight)
    folder = settled.validator.run.weights_folder
    assert sorted(path.name for path in folder.glob("*.pth")) == ["teacher_head_1.pth", "teacher_head_3.pth"]


def replace_section(**update: Any) -> TeacherSection:
    return FITTED.model_copy(update=update)


def test_what_is_kept_says_what_it_was_fitted_to(setup: PreflightSetup) -> None:
    settled = Settled(setup)
    about = json.loads(Path(f"{settled.kept}.json").read_text())["about"]
    assert {name: about[name] for name in ("teacher", "items", "pictures", "accuracy")} == {
        "teacher": "teacher 1",
        "items": 20,
        "pictures": 40,
        "accuracy": 1.0,
    }


def test_of_a_large_set_the_line_says_how_many_were_drawn(
    setup: PreflightSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_heads, "MOST_SAMPLES", 8)
    settled = Settled(setup)
    assert "head fitted on 8 of 20 training samples, drawn by the seed (16 pictures)" in settled.lines[0]
    assert len(setup.source.made) == 8


def test_a_head_that_the_file_holds_is_replaced_and_that_is_said(setup: PreflightSetup, tmp_path: Path) -> None:
    body = Body(7)
    torch.save(body.state_dict(), tmp_path / "t.pth")
    setup.sections = (replace_section(weights=str(tmp_path / "t.pth")),)
    settled = Settled(setup, body)
    assert settled.lines[0] == (
        f'teacher 1: the head that {tmp_path / "t.pth"} holds is replaced, as "head": "fitted" asks'
    )
    assert not torch.equal(settled.head.weight, Body(7).head.weight)
    state = {name: value for name, value in Body(7).state_dict().items() if "head" not in name}
    torch.save(state, tmp_path / "t.pth")
    settled.kept.unlink()
    assert len(Settled(setup, Body(7)).lines) == 1


# --- What cannot be fitted, and what has changed --------------------------------------------------------------------


def test_one_class_only_is_refused(setup: PreflightSetup) -> None:
    setup.source.labels = (1, 1)
    with pytest.raises(UserError, match="of 2 classes the 40 training pictures show 1") as caught:
        Settled(setup)
    assert "labels 1" in str(caught.value)


def test_features_that_are_not_numbers_are_refused_with_their_pictures(setup: PreflightSetup) -> None:
    body = Body()
    body.body.bias.data[1] = float("nan")
    with pytest.raises(UserError, match="features of training pictures are not numbers") as caught:
        Settled(setup, body)
    assert "40 of 40 pictures, such as sample 0#real" in str(caught.value)
    assert not list(setup.root.rglob("teacher_head*"))


def test_samples_that_cannot_be_read_are_reported_and_substituted(setup: PreflightSetup) -> None:
    setup.source.broken = (3, 4)
    reported: list[Any] = []
    validator = replace(setup.make_validator(), report_unreadable=reported.extend)
    settle_heads(validator, [("teacher 1", FrozenTeacher(Body()))], must_be_kept=False, say=reported.append)
    assert {sample.path for sample in reported[:-1]} == {"sample 3", "sample 4"}


def test_a_stop_is_honoured_between_batches_and_nothing_is_kept(setup: PreflightSetup) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    setup.stop = stop
    with pytest.raises(Stopped):
        Settled(setup)
    assert not list(setup.root.rglob("teacher_head*"))


def spoil_weights(setup: PreflightSetup) -> Body:
    return Body(1)


def spoil_mean(setup: PreflightSetup) -> Body:
    setup.sections = (replace_section(mean=(0.5, 0.5, 0.5)),)
    return Body()


@pytest.mark.parametrize("change", [spoil_weights, spoil_mean])
def test_a_teacher_that_has_changed_is_refused_once_it_has_taught_and_fitted_anew_before(
    setup: PreflightSetup, change: Any
) -> None:
    first = Settled(setup).kept.read_bytes()
    other = change(setup)
    with pytest.raises(UserError, match="was fitted to other features") as caught:
        Settled(setup, other, begun=True)
    assert "--allow changed-config" in str(caught.value)
    again = Settled(setup, other)
    assert again.fitted == ["teacher 1"]
    assert again.kept.read_bytes() != first


def test_a_head_that_is_gone_is_refused_once_it_has_taught(setup: PreflightSetup) -> None:
    Settled(setup).kept.unlink()
    with pytest.raises(UserError, match="does not exist, and it holds the head with which teacher 1 has taught"):
        Settled(setup, begun=True)


@pytest.mark.parametrize("begun", [True, False])
def test_a_damaged_head_is_refused(setup: PreflightSetup, begun: bool) -> None:
    path = Settled(setup).kept
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        Settled(setup, begun=begun)


def test_the_head_of_another_network_is_refused(setup: PreflightSetup) -> None:
    from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint

    path = Settled(setup).kept
    about = load_checkpoint(path).about
    save_checkpoint(path, {"weight": torch.zeros(2, 9), "bias": torch.zeros(2)}, about=about)
    with pytest.raises(UserError, match="is no head of teacher 1"):
        Settled(setup, begun=True)


# --- Replays and dry runs -------------------------------------------------------------------------------------------


def take_up(setup: PreflightSetup, body: Body | None = None) -> tuple[FrozenTeacher, list[str]]:
    teacher, lines = FrozenTeacher(body or Body()), list[str]()
    validator = setup.make_validator()
    restore_heads(validator.run.config, [("teacher 1", teacher)], validator.run.weights_folder, say=lines.append)
    return teacher, lines


def test_a_replay_takes_the_head_of_its_run(setup: PreflightSetup) -> None:
    settled = Settled(setup)
    teacher, lines = take_up(setup)
    assert torch.equal(teacher.head.weight, settled.head.weight)
    assert lines == []


def test_a_replay_with_another_file_of_the_teacher_is_told_and_goes_on(setup: PreflightSetup) -> None:
    settled = Settled(setup)
    teacher, (line,) = take_up(setup, Body(1))
    assert line.startswith(f"warning: {settled.kept} was fitted to other features")
    assert torch.equal(teacher.head.weight, settled.head.weight)


def test_a_replay_without_the_head_is_refused(setup: PreflightSetup) -> None:
    with pytest.raises(UserError, match="does not exist"):
        take_up(setup)


def test_a_dry_run_says_what_would_be_fitted(setup: PreflightSetup) -> None:
    setup.sections = (replace_section(head="loaded"), FITTED)
    named = [("teacher 1 a", FrozenTeacher(Body())), ("teacher 2 b", FrozenTeacher(Body()))]
    (line,) = describe_fits(setup.make_validator().run.config, named, 20)
    assert line == (
        "the head of teacher 2 b would be fitted on the 20 training samples; this batch met one of zeros in its place"
    )


def test_a_dry_run_of_a_large_set_counts_the_samples_that_are_drawn(setup: PreflightSetup) -> None:
    named = [("teacher", FrozenTeacher(Body()))]
    (line,) = describe_fits(setup.make_validator().run.config, named, 100_000)
    assert "on 4096 of the 100000 training samples" in line


def test_pictures_of_epoch_0_are_those_of_every_start(setup: PreflightSetup) -> None:
    """Not those of an epoch of training: what teaches has not seen the very pixels that the student learns from."""
    seen: list[bytes] = []

    class Noting(Pictures):
        def make(self, index: int, rng: np.random.Generator) -> Any:
            sample = super().make(index, rng)
            seen.append(sample.inputs["image"].tobytes())
            return sample

    setup.source = Noting()
    Settled(setup).kept.unlink()
    Settled(setup)
    assert seen[:20] == seen[20:]
    assert teacher_heads.FORMAT == 1
