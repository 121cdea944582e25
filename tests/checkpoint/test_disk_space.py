"""Whether a disk has space for what a run will save, checked before the first step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sharpstudent.checkpoint import disk_space
from sharpstudent.checkpoint.disk_space import check_disk_space, estimate_disk_space, measure_tensors
from sharpstudent.checkpoint.selection import BestCheckpoints
from sharpstudent.checkpoint.store import save_checkpoint, save_run_state
from sharpstudent.core.errors import UserError

MODEL = {"layer.weight": torch.ones(50_000), "layer.bias": torch.ones(1000), "steps": torch.tensor(1)}
WEIGHTS = measure_tensors(MODEL)


def have_free(monkeypatch: pytest.MonkeyPatch, free: int, total: int = 10**12) -> None:
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: SimpleNamespace(free=free, total=total))


def check(folder: Path, *, resumed: bool = False, keep_best: int = 5) -> str:
    return check_disk_space(folder, MODEL, optimizer_copies=1, keep_best=keep_best, resumed=resumed)


@pytest.mark.parametrize("copies", [0, 1, 2])
def test_the_estimate_is_what_a_run_really_writes_or_a_little_more(tmp_path: Path, copies: int) -> None:
    # Cloned: torch writes shared memory once.
    state = {"model": MODEL, "optimizer": [{k: v.clone() for k, v in MODEL.items()} for _ in range(copies)]}
    best, largest = BestCheckpoints(tmp_path, keep=2, metric="val_auc"), 0
    first, whole = estimate_disk_space(WEIGHTS, (1 + copies) * WEIGHTS, keep_best=2)
    for epoch in range(1, 6):
        best.consider(epoch, epoch / 10, lambda path: save_checkpoint(path, {"model": MODEL}, about={}))
        save_run_state(tmp_path, tensors=state, progress={})
        used = disk_space._measure_files(tmp_path.rglob("*"))
        largest = max(largest, used)
        if epoch == 1:
            assert used < first
    assert 0.3 * whole < largest + disk_space.LOG_BYTES < whole
    written = (tmp_path / "last.pth").stat().st_size
    assert written - 2000 <= measure_tensors(state) < 1.1 * written


def test_a_disk_without_room_for_the_first_saves_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, whole = estimate_disk_space(WEIGHTS, 2 * WEIGHTS, keep_best=5)
    have_free(monkeypatch, first - 1)
    with pytest.raises(UserError, match="no space for the first saves") as caught:
        check(tmp_path / "output" / "run")
    text = str(caught.value)
    for word in (f"{first:,} bytes", f"{first - 1:,} bytes free", f"{whole:,}", "output_root"):
        assert word in text
    have_free(monkeypatch, first)
    assert "warning: the disk may fill up before the run ends" in check(tmp_path / "output" / "run")


def test_enough_disk_space_is_reported_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    have_free(monkeypatch, 5_000_000_000)
    line = check(tmp_path / "output")
    assert line == f"the run needs up to 5.1 MB in {tmp_path / 'output'}, where 5.0 GB are free"
    assert check(tmp_path, keep_best=100) != line


def test_a_resumed_run_needs_only_what_it_has_not_written_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    have_free(monkeypatch, 2 * WEIGHTS - 1)
    with pytest.raises(UserError, match="no space for the next save"):
        check(tmp_path, resumed=True)
    have_free(monkeypatch, 2 * WEIGHTS)
    assert "needs up to 5.1 MB more" in check(tmp_path, resumed=True)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.pth").write_bytes(bytes(3_000_000))
    (tmp_path / "weights" / "b.pth").hardlink_to(tmp_path / "weights" / "a.pth")
    assert "needs up to 2.1 MB more" in check(tmp_path, resumed=True)


def test_a_disk_that_does_not_say_how_much_is_free_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_free(monkeypatch, 0, total=0)
    assert "is not known" in check(tmp_path)

    def refuse(_: Path) -> None:
        raise OSError("no such call")

    monkeypatch.setattr(disk_space.shutil, "disk_usage", refuse)
    assert "is not known" in check(tmp_path)
