"""What is kept of skipped steps: the batch and the very state it met, a few of them, whole or not at all."""

from __future__ import annotations

import copy
import errno
import json
import os
import random
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Batch, StepResult
from sharpstudent.train.debug.skipped import SkippedSteps, load_skipped
from sharpstudent.train.state import capture_step
from sharpstudent.train.step import TrainStep
from tiny_models import are_identical, make_batch, make_step, make_student, make_teacher
from torch import Tensor, nn

CPU = torch.device("cpu")
SKIP = StepResult("skipped", reason="the loss of pass 1 is not finite")
SETTINGS = {"lr": 0.1, "rho": 0.05, "parts": 1}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


@pytest.fixture
def kept(tmp_path: Path) -> SkippedSteps:
    return SkippedSteps(tmp_path, 1)


def at(step: int, epoch: int = 1) -> Progress:
    return Progress(epoch, step, epochs=20, steps_per_epoch=50)


def keep(kept: SkippedSteps, step: TrainStep, number: int, batch: Batch | None = None, **words: Any) -> str:
    return kept.keep(
        make_batch(number) if batch is None else batch,
        at(number),
        words.get("result", SKIP),
        settings=SETTINGS,
        capture_state=lambda: capture_step(step, CPU),
    )


def list_files(kept: SkippedSteps, pattern: str = "*") -> list[str]:
    return sorted(path.name for path in kept.folder.glob(pattern))


def refuse(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_skipped(path)
    return caught.value.as_text()


# --- What is kept ---------------------------------------------------------------------------------------------------


def test_a_batch_comes_back_bit_for_bit_with_its_nans_and_all_that_is_known(kept: SkippedSteps) -> None:
    step = make_step()
    inputs = make_batch().inputs["image"].clone()
    inputs[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -0.0])
    inputs.view(torch.int32)[1, 0, 0, 0] = 0x7FC12345  # a NaN with a message in it
    rows = {name: tuple(values) for name, values in make_batch().rows.items()}
    rows |= {"mask": torch.rand(8, 9, 9), "sample": (0, 0, 0, 1, 2, 2, 3, 3), "key": tuple((i, 0, i) for i in range(8))}
    batch = replace(make_batch(), inputs={"image": inputs}, rows=rows, weights={"label": torch.rand(8)})
    assert not torch.isfinite(batch.inputs["image"]).all()
    line = keep(kept, step, 3, batch)
    path = kept.folder / "epoch_1_step_3.pth"
    assert line == f"to look at it: python train_student_only.py --replay {path}"
    loaded = load_skipped(path)
    assert are_identical(vars(loaded.batch), vars(batch))
    assert (loaded.progress, loaded.reason, loaded.settings) == (at(3), SKIP.reason, SETTINGS)
    assert loaded.computed_on["torch"] == torch.__version__


@pytest.mark.parametrize("parts", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("masks", [None, torch.rand(8, 9, 9)], ids=["plain", "with masks"])
def test_a_batch_of_runs_of_before_this_form_passes_in_the_parts_of_its_own_run(
    kept: SkippedSteps, parts: int, masks: Tensor | None
) -> None:
    """Its images were dealt out, one to each part in turn."""
    batch = make_batch()
    kept.keep(
        batch, at(0), SKIP, settings=SETTINGS | {"parts": parts}, capture_state=lambda: capture_step(make_step(), CPU)
    )
    path = kept.folder / "epoch_1_step_0.pth"
    about = {key: value for key, value in load_checkpoint(path).about.items() if key not in ("rows", "shared")}
    names = {key: [f"{key} {row}" for row in range(8)] for key in ("sample_ids", "clip_ids", "identities")}
    images, labels = batch.inputs["image"], batch.targets["label"]
    tensors = {"inputs": images, "labels": labels} | ({} if masks is None else {"masks": masks})
    save_checkpoint(path, tensors, about=about | names)  # as those runs wrote it
    pieces = load_skipped(path).batch.split(parts)
    count = min(parts, 8)
    assert len(pieces) == count
    for start, piece in enumerate(pieces):
        assert torch.equal(piece.inputs["image"], images[start::count])
        assert torch.equal(piece.targets["label"], labels[start::count])
        assert ("mask" in piece.rows) == (masks is not None)
        assert masks is None or torch.equal(piece.rows["mask"], masks[start::count])
        for name, key in (("id", "sample_ids"), ("clip", "clip_ids"), ("group", "identities")):
            assert list(piece.rows[name]) == names[key][start::count]


def test_images_that_lie_channels_last_come_back_so(kept: SkippedSteps) -> None:
    keep(kept, make_step(), 0, make_batch().to(CPU, memory_format=torch.channels_last))
    inputs = load_skipped(kept.folder / "epoch_1_step_0.pth").batch.inputs["image"]
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_both_files_hold_nothing_that_weights_only_refuses(kept: SkippedSteps) -> None:
    keep(kept, make_step(base="adamw"), 0)
    for path in kept.folder.glob("*.pth"):
        torch.load(path, weights_only=True)
    assert len(list_files(kept, "*.pth")) == 2


def test_the_command_names_the_script_of_the_stage_and_quotes_the_path(tmp_path: Path) -> None:
    kept = SkippedSteps(tmp_path / "my runs", 2)
    assert re.search(r"python main_distillation\.py --replay '.*/my runs/skipped/epoch_1_step_0\.pth'$", keep(
        kept, make_step(), 0))  # fmt: skip


class Overflow(nn.Module):
    """Adds a term that overflows in one chosen place, and only when switched on."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student, self.at, self.calls = student, "", 0

    def forward(self, image: Tensor) -> Any:
        self.calls += 1
        outputs = self.student(image)
        if (self.at, self.calls) in (("pass 1", 1), ("pass 2", 2)):
            return {**outputs, "logits": outputs["logits"] * float("inf")}
        if self.at == "gradient":
            zero = outputs["logits"].abs().sum() * 0
            return {**outputs, "logits": outputs["logits"] + torch.sqrt(zero)}  # slope inf, times 0
        return outputs


@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("at_place", "reason"),
    [
        ("image", "the input batch"),
        ("teacher", "the teacher's logits"),
        ("pass 1", "the loss of pass 1"),
        ("pass 2", "the loss of pass 2"),
        ("gradient", "the gradient of pass 1"),
        ("buffer", "the buffer student.norm.running_var"),
        ("update", "the updated weights"),
    ],
)
def test_the_state_is_bit_for_bit_the_one_that_the_step_met(
    kept: SkippedSteps, at_place: str, reason: str, base: str, steps_before: int
) -> None:
    """It is taken after the rollback: wherever the step failed, nothing of it may be left."""
    student: Any = Overflow(make_student())
    step = make_step(student, teacher=make_teacher(), base=base)
    for number in range(steps_before):
        assert step(make_batch(number), at(number)).ok
    batch = make_batch(7)
    if at_place == "image":
        batch.inputs["image"][0, 0, 0, 0] = float("nan")
    elif at_place == "teacher":
        assert step.teacher is not None
        step.teacher.register_forward_hook(lambda m, i, outputs: {**outputs, "logits": outputs["logits"] / 0})
    elif at_place == "buffer":
        student.student.stem.register_forward_hook(lambda m, i, out: out * 1e20)
    elif at_place == "update":
        take = step.optimizer.base_optimizer.step

        def overshoot() -> None:
            take()
            student.student.head.bias.data.fill_(float("inf"))

        step.optimizer.base_optimizer.step = overshoot  # type: ignore[method-assign]
    student.at, student.calls = at_place, 0
    before = copy.deepcopy(capture_step(step, CPU))
    result = step(batch, at(7))
    assert not result.ok
    assert str(result.reason).startswith(reason)
    keep(kept, step, 7, batch, result=result)
    assert are_identical(dict(load_skipped(kept.folder / "epoch_1_step_7.pth").state), before)


# --- How many -------------------------------------------------------------------------------------------------------


def test_skips_in_a_row_share_one_state_and_after_a_good_step_there_is_another(kept: SkippedSteps) -> None:
    step = make_step()
    for number in range(3):
        assert "--replay" in keep(kept, step, number)
    assert (len(list_files(kept, "epoch_*.pth")), len(list_files(kept, "state_*.pth"))) == (3, 1)
    assert step(make_batch(9), at(9)).ok
    kept.forget_state()
    keep(kept, step, 10)
    first, last = (load_skipped(kept.folder / f"epoch_1_step_{number}.pth").state for number in (0, 10))
    assert len(list_files(kept, "state_*.pth")) == 2
    assert not are_identical(first["model"], last["model"])
    assert are_identical(last["model"], dict(step.student.state_dict()))


def test_within_a_row_the_state_is_captured_once(kept: SkippedSteps) -> None:
    step, captured = make_step(), []
    for number in range(3):
        kept.keep(
            make_batch(number),
            at(number),
            SKIP,
            settings=SETTINGS,
            capture_state=lambda: captured.append(1) or capture_step(step, CPU),
        )
    assert captured == [1]


def test_the_first_ten_batches_are_kept(kept: SkippedSteps) -> None:
    step = make_step()
    lines = [keep(kept, step, number) for number in range(12)]
    assert ["--replay" in line for line in lines] == [True] * 10 + [False] * 2
    assert lines[10:] == [f"not kept, nor are later ones: {kept.folder} holds 10 batches", ""]
    assert len(list_files(kept, "epoch_*.pth")) == 10
    assert "--replay" in keep(kept, step, 4)  # it is one of them


def test_the_first_three_states_are_kept_and_a_batch_without_its_state_is_not(kept: SkippedSteps) -> None:
    step, lines = make_step(), []
    for number in range(5):
        lines.append(keep(kept, step, number))
        assert step(make_batch(20 + number), at(20)).ok
        kept.forget_state()
    assert ["--replay" in line for line in lines] == [True] * 3 + [False] * 2
    assert lines[3:] == [f"not kept, nor are later ones: {kept.folder} holds 3 states", ""]
    assert (len(list_files(kept, "epoch_*.pth")), len(list_files(kept, "state_*.pth"))) == (3, 3)


def test_a_resumed_run_that_meets_the_same_skip_again_writes_nothing(kept: SkippedSteps, tmp_path: Path) -> None:
    step = make_step()
    inputs = make_batch(3).inputs["image"].clone()
    inputs[0] = float("nan")
    batch = replace(make_batch(3), inputs={"image": inputs})
    line = keep(kept, step, 3, batch)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept.folder.iterdir()}
    state = load_skipped(kept.folder / "epoch_1_step_3.pth").state
    again = make_step(make_student(seed=5))  # another process, after its resume
    again.student.load_state_dict(state["model"])
    again.optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"]["torch"])
    assert keep(SkippedSteps(tmp_path, 1), again, 3, replace(batch, inputs={"image": inputs.clone()})) == line
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept.folder.iterdir()} == before


def test_a_skip_that_differs_replaces_the_one_of_the_same_step(kept: SkippedSteps) -> None:
    step = make_step()
    keep(kept, step, 3)
    keep(kept, step, 3, make_batch(99))
    assert are_identical(
        load_skipped(kept.folder / "epoch_1_step_3.pth").batch.inputs["image"], make_batch(99).inputs["image"]
    )
    keep(kept, step, 3, make_batch(99), result=replace(SKIP, reason="another"))
    assert load_skipped(kept.folder / "epoch_1_step_3.pth").reason == "another"


def test_a_damaged_state_of_before_is_written_anew(kept: SkippedSteps, tmp_path: Path) -> None:
    step = make_step()
    keep(kept, step, 3)
    (state,) = kept.folder.glob("state_*.pth")
    whole = state.read_bytes()
    state.write_bytes(whole[:-100])
    keep(SkippedSteps(tmp_path, 1), step, 4)
    assert state.read_bytes() == whole
    load_skipped(kept.folder / "epoch_1_step_3.pth")


# --- Disks ----------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_gives_one_line_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "skipped").write_text("a file")
    line = keep(SkippedSteps(tmp_path, 1), make_step(), 0)
    assert line.startswith(f"not kept: {tmp_path / 'skipped'}")
    assert "\n" not in line
    assert "could not be written" in line


@pytest.mark.parametrize("file", ["state_*.pth", "epoch_1_step_0.pth"])
def test_a_full_disk_gives_one_line_and_the_next_skip_tries_again(
    kept: SkippedSteps, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    write = Path.write_bytes

    def fail(self: Path, content: bytes) -> int:
        if self.match(f".{file}.*"):
            write(self, content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        line = keep(kept, make_step(), 0)
    assert line.startswith("not kept: ")
    assert "No space left" in line
    assert "\n" not in line
    assert list_files(kept, "epoch_*") == []
    assert list_files(kept, ".*.partial") == []
    assert "--replay" in keep(kept, make_step(), 0)
    load_skipped(kept.folder / "epoch_1_step_0.pth")


def test_a_folder_that_may_not_be_read_gives_one_line(kept: SkippedSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_all(self: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", refuse_all)
    assert keep(kept, make_step(), 0) == f"not kept: {kept.folder}: Permission denied"


def test_a_kill_at_any_instant_leaves_whole_files_or_none(tmp_path: Path) -> None:
    """Twenty processes are killed while they keep steps; whatever lies there afterwards loads, and no strays stay."""
    step, found = make_step(make_student(width=160)), 0
    for trial in range(20):
        folder = tmp_path / str(trial)
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(1)
                kept = SkippedSteps(folder, 1)
                for number in range(10**6):
                    keep(kept, step, number % 10, make_batch(number % 7))  # another batch each time: it always writes
            finally:
                os._exit(1)
        end = time.monotonic() + 60
        while len(list(folder.glob("skipped/epoch_*.pth"))) < trial / 2 and time.monotonic() < end:
            time.sleep(0.0001)
        time.sleep(random.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kept = SkippedSteps(folder, 1)
        assert list_files(kept, ".*.partial") == []
        for path in kept.folder.glob("epoch_*.pth"):
            load_skipped(path)
            found += 1
    assert found >= 90


# --- Files that are something else ----------------------------------------------------------------------------------


@pytest.fixture
def path(kept: SkippedSteps) -> Path:
    keep(kept, make_step(), 3)
    return kept.folder / "epoch_1_step_3.pth"


def test_a_missing_file_is_refused(path: Path) -> None:
    assert "does not exist" in refuse(path.with_name("epoch_9_step_9.pth"))


def test_a_checkpoint_and_a_state_are_no_skipped_batches(path: Path) -> None:
    save_checkpoint(path.with_name("best_model.pth"), {"model": {"w": torch.ones(2)}}, about={"epoch": 1})
    (state,) = path.parent.glob("state_*.pth")
    for other in ("best_model.pth", state.name):
        assert f"{other}: is not a skipped batch" in refuse(path.with_name(other))


@pytest.mark.parametrize("name", ["progress", "settings", "state", "rows", "shared", "reason", "computed_on"])
@pytest.mark.parametrize("value", [None, 7, "absent"])
def test_a_batch_with_another_description_is_refused(path: Path, name: str, value: Any) -> None:
    stored = load_checkpoint(path)
    about = {key: old for key, old in stored.about.items() if key != name}
    if value != "absent":
        about[name] = value
    save_checkpoint(path, stored.tensors, about=about)
    if name in ("reason", "state") and value != "absent":  # any text may be a reason; no such state
        assert name == "reason" or "does not exist" in refuse(path)
    else:
        assert "is not a skipped batch" in refuse(path)


@pytest.mark.parametrize("what", ["batch", "state"])
def test_a_damaged_file_is_refused_with_the_reason(path: Path, what: str) -> None:
    (state,) = path.parent.glob("state_*.pth")
    file = path if what == "batch" else state
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    assert str(file) in (text := refuse(path))
    assert "damaged" in text


def test_a_pickle_with_code_in_it_is_refused_and_not_run(path: Path, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, Any]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"inputs": Code()}, path)
    path.with_name(f"{path.name}.json").unlink()
    assert "nothing in it was run" in refuse(path)
    assert not (tmp_path / "ran").exists()


def test_the_state_of_another_run_is_refused_also_under_the_same_name_and_whole(path: Path) -> None:
    (state,) = path.parent.glob("state_*.pth")
    save_checkpoint(path.with_name("other.pth"), capture_step(make_step(make_student(seed=8)), CPU), about={})
    path.with_name("other.pth").rename(state)  # the JSON beside it is still of the first
    assert "is not the state that this batch met" in refuse(path)
    state.unlink()
    assert f"{state}: does not exist" in refuse(path)


def test_the_two_pth_files_alone_suffice(path: Path) -> None:
    for record in path.parent.glob("*.json"):
        assert json.loads(record.read_text())["format"] == 1
        record.unlink()
    assert load_skipped(path).reason == SKIP.reason
