"""The cache of tables stays within its limits, and pruning it never disturbs a run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from preflight_setup import GOOD, STUDENT, Pictures, PreflightSetup, make_task
from sharpstudent.core.types import Table
from sharpstudent.metrics.bootstrap import join_tables
from sharpstudent.metrics.checks import MetricError
from sharpstudent.train.preflight import table_cache
from sharpstudent.train.preflight.table_cache import MOST_FILES, STRAY_SECONDS, TableCache

LONG_AGO = 1_000_000_000


def make_cache(folder: Path) -> TableCache:
    return TableCache(folder, "data", torch.device("cpu"), make_task(), lambda line: None)


def fill(folder: Path, count: int, *, size: int = 10) -> list[Path]:
    """Files in the order of their age, the oldest first."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}.json" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(b"x" * size)
        os.utime(path, (LONG_AGO + number, LONG_AGO + number))
    return paths


def test_the_newest_files_are_kept(tmp_path: Path) -> None:
    paths = fill(tmp_path, MOST_FILES + 5)
    make_cache(tmp_path).prune([])
    assert sorted(tmp_path.iterdir()) == paths[5:]


def test_no_more_bytes_than_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_cache, "MOST_BYTES", 1000)
    paths = fill(tmp_path, 12, size=300)
    make_cache(tmp_path).prune([])
    assert sorted(tmp_path.iterdir()) == paths[-3:]


def test_what_this_run_has_used_is_kept_whatever_its_age_and_size(tmp_path: Path) -> None:
    paths = fill(tmp_path, MOST_FILES + 5)
    make_cache(tmp_path).prune(paths[:2])
    assert set(tmp_path.iterdir()) == {*paths[:2], *paths[5:]}


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, MOST_FILES + 1)
    (tmp_path / "notes.txt").write_text("mine")
    os.utime(tmp_path / "notes.txt", (1, 1))
    make_cache(tmp_path).prune([])
    assert (tmp_path / "notes.txt").exists()


def test_half_written_files_of_killed_runs_go_after_a_day(tmp_path: Path) -> None:
    old, new = tmp_path / ".a.json.77.partial", tmp_path / ".b.json.78.partial"
    for path, age in ((old, STRAY_SECONDS + 60), (new, 60)):
        path.write_text("x")
        os.utime(path, (time.time() - age,) * 2)
    make_cache(tmp_path).prune([])
    assert list(tmp_path.iterdir()) == [new]


def test_a_folder_that_is_not_there_or_is_a_file_is_no_fault(tmp_path: Path) -> None:
    make_cache(tmp_path / "none").prune([])
    (tmp_path / "file").write_text("x")
    make_cache(tmp_path / "file").prune([])


def test_a_file_that_another_run_has_deleted_meanwhile_or_that_the_disk_keeps_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = fill(tmp_path, MOST_FILES + 3)
    unlink = Path.unlink

    def unlink_badly(self: Path, **words: bool) -> None:
        if self == paths[0]:
            raise PermissionError(13, "not yours")
        if self == paths[1]:
            unlink(self)  # the other run was first
        unlink(self, **words)

    monkeypatch.setattr(Path, "unlink", unlink_badly)
    make_cache(tmp_path).prune([])
    assert sorted(tmp_path.iterdir()) == [paths[0], *paths[3:]]


def test_two_runs_that_prune_at_once_harm_neither(tmp_path: Path) -> None:
    paths = fill(tmp_path, 4 * MOST_FILES)
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def prune_with_others() -> None:
        try:
            start.wait()
            make_cache(tmp_path).prune([])
        except OSError as error:  # collected here: an exception in this thread would fail no test
            errors.append(error)

    threads = [threading.Thread(target=prune_with_others) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(tmp_path.iterdir()) == paths[-MOST_FILES:]


def test_a_preflight_keeps_order_and_its_own_scores(tmp_path: Path) -> None:
    setup = PreflightSetup(tmp_path / "output")
    setup.run_preflight(STUDENT, GOOD)
    first = set(setup.find_kept())
    for path in first:
        os.utime(path, (1, 1))  # older than all others
    fill(tmp_path / "output/.preflight", MOST_FILES)
    second = setup.run_preflight(STUDENT, GOOD)
    assert not setup.has_evaluated
    assert second.samples == 20
    assert first <= set(setup.find_kept())
    assert len(setup.find_kept()) == MOST_FILES
    assert all(path.stat().st_mtime > LONG_AGO + MOST_FILES for path in first)  # used now


def test_scores_of_a_version_that_kept_them_in_another_order_are_not_mixed_with_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = PreflightSetup(tmp_path / "output")
    with monkeypatch.context() as earlier:
        earlier.setattr(table_cache, "FORMAT", 1)
        setup.run_preflight(STUDENT, GOOD)
        setup.run_preflight(STUDENT, GOOD)
        assert not setup.has_evaluated
    setup.run_preflight(STUDENT, GOOD)
    assert setup.has_evaluated


# --- Tables beside a run --------------------------------------------------------------------------------------------


def make_table(names: Sequence[str]) -> Table:
    """Every row says which it is."""
    number = np.arange(len(names))
    return {
        "id": np.array(names, np.str_),
        "group": np.array([f"person {n}" for n in number], np.str_),
        "clip": np.array([f"clip {n}" for n in number], np.str_),
        "logits": np.stack([-number, number + 0.5], axis=1).astype(np.float32),
        "label": number % 3,
    }


def take(table: Table, rows: Sequence[int]) -> Table:
    return {name: column[np.array(rows, np.int64)] for name, column in table.items()}


def assert_same(one: Table, other: Table) -> None:
    assert one["logits"].tobytes() == other["logits"].tobytes()
    assert one["label"].tobytes() == other["label"].tobytes()
    assert one.keys() == other.keys()
    for name in ("id", "clip", "group"):
        assert one[name].tolist() == other[name].tolist()


@given(st.permutations(range(9)))
@settings(deadline=None, max_examples=50)
def test_tables_are_put_in_the_order_of_the_first_ones_names(order: Sequence[int]) -> None:
    table = make_table([f"sample {i}" for i in range(9)])
    first, ordered = join_tables([table, take(table, order)])
    assert_same(first, table)
    assert_same(ordered, table)


def test_a_name_that_comes_again_keeps_the_order_of_its_rows() -> None:
    table = make_table(["a", "b", "a", "c", "a", "b"])
    wanted = take(table, [3, 0, 1, 5, 2, 4])
    assert wanted["id"].tolist() == ["c", "a", "b", "b", "a", "a"]
    _, ordered = join_tables([wanted, table])
    assert_same(ordered, wanted)


@pytest.mark.parametrize(
    "names", [["a", "b"], ["a", "b", "c"], ["a", "b", "a", "a"], ["a", "b", "b"], []], ids=lambda names: "".join(names)
)
def test_tables_of_other_samples_are_refused(names: list[str]) -> None:
    with pytest.raises(MetricError, match=r"different rows: (\d+ and \d+ of them|id differs for)"):
        join_tables([make_table(names), make_table(["a", "b", "a"])])


def test_stored_outputs_are_not_reused_once_a_file_that_describes_the_samples_has_changed(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest"
    manifest.write_text("one")
    setup = PreflightSetup(tmp_path / "output", source=Pictures(depends_on=(manifest,)))
    setup.run_preflight(STUDENT, GOOD)
    setup.run_preflight(STUDENT, GOOD)
    assert any("was evaluated on these samples before" in line for line in setup.lines)
    manifest.write_text("another")
    setup.run_preflight(STUDENT, GOOD)
    assert not any("was evaluated on these samples before" in line for line in setup.lines)
