"""Kept scores do not grow without end, and keeping order among them never disturbs a run."""

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
from preflight_place import GOOD, STUDENT, Place
from sharpstudent.evaluation.task import Scores
from sharpstudent.train.preflight import score_cache
from sharpstudent.train.preflight.score_cache import MOST_FILES, STRAY_SECONDS, ScoreCache, put_in_order

LONG_AGO = 1_000_000_000


def make_cache(folder: Path) -> ScoreCache:
    return ScoreCache(folder, "data", torch.device("cpu"), 8, lambda line: None)


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
    monkeypatch.setattr(score_cache, "MOST_BYTES", 1000)
    paths = fill(tmp_path, 12, size=300)
    make_cache(tmp_path).prune([])
    assert sorted(tmp_path.iterdir()) == paths[-3:]


def test_what_this_run_has_used_is_kept_whatever_its_age_and_size(tmp_path: Path) -> None:
    paths = fill(tmp_path, MOST_FILES + 5)
    make_cache(tmp_path).prune(paths[:2])
    assert set(tmp_path.iterdir()) == {*paths[:2], *paths[5:]}


def test_other_files_in_the_folder_are_let_be(tmp_path: Path) -> None:
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
        except OSError as error:  # told in this thread, which has no test to fail
            errors.append(error)

    threads = [threading.Thread(target=prune_with_others) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(tmp_path.iterdir()) == paths[-MOST_FILES:]


def test_a_preflight_keeps_order_and_its_own_scores(tmp_path: Path) -> None:
    place = Place(tmp_path / "output")
    place.fly(STUDENT, GOOD)
    first = set(place.find_kept())
    for path in first:
        os.utime(path, (1, 1))  # older than all others
    fill(tmp_path / "output/.preflight", MOST_FILES)
    second = place.fly(STUDENT, GOOD)
    assert not place.was_judged
    assert second.items == 20
    assert first <= set(place.find_kept())
    assert len(place.find_kept()) == MOST_FILES
    assert all(path.stat().st_mtime > LONG_AGO + MOST_FILES for path in first)  # used now


def test_scores_of_a_version_that_kept_them_in_another_order_are_not_mixed_with_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "output")
    with monkeypatch.context() as earlier:
        earlier.setattr(score_cache, "FORMAT", 1)
        place.fly(STUDENT, GOOD)
        place.fly(STUDENT, GOOD)
        assert not place.was_judged
    place.fly(STUDENT, GOOD)
    assert place.was_judged


# --- Scores beside a run --------------------------------------------------------------------------------------------


def make_scores(names: Sequence[str]) -> Scores:
    """Every row says which it is."""
    number = np.arange(len(names))
    logits = np.stack([-number, number + 0.5], axis=1).astype(np.float32)
    return Scores(
        logits, number % 3, tuple(names), *(tuple(f"{kind} {n}" for n in number) for kind in ("clip", "person"))
    )


def take(scores: Scores, rows: Sequence[int]) -> Scores:
    chosen = list(rows)
    columns = (scores.sample_ids, scores.clip_ids, scores.identities)
    return Scores(scores.logits[chosen], scores.labels[chosen], *(tuple(c[row] for row in chosen) for c in columns))


def assert_same(one: Scores, other: Scores) -> None:
    assert one.logits.tobytes() == other.logits.tobytes()
    assert one.labels.tobytes() == other.labels.tobytes()
    for name in ("sample_ids", "clip_ids", "identities"):
        assert getattr(one, name) == getattr(other, name)


@given(st.permutations(range(9)))
@settings(deadline=None, max_examples=50)
def test_scores_are_put_in_the_order_of_other_names(order: Sequence[int]) -> None:
    scores = make_scores([f"item {i}" for i in range(9)])
    ordered = put_in_order(take(scores, order), scores.sample_ids)
    assert ordered is not None
    assert_same(ordered, scores)


def test_a_name_that_comes_again_keeps_the_order_of_its_rows() -> None:
    scores = make_scores(["a", "b", "a", "c", "a", "b"])
    ordered = put_in_order(scores, ["c", "a", "b", "b", "a", "a"])
    assert ordered is not None
    assert_same(ordered, take(scores, [3, 0, 1, 5, 2, 4]))


@pytest.mark.parametrize(
    "names", [["a", "b"], ["a", "b", "c"], ["a", "b", "a", "a"], ["a", "b", "b"], []], ids=lambda names: "".join(names)
)
def test_scores_of_other_samples_are_refused(names: list[str]) -> None:
    assert put_in_order(make_scores(["a", "b", "a"]), names) is None


def test_scores_are_not_taken_again_once_a_file_that_describes_the_items_has_changed(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest"
    manifest.write_text("one")
    place = Place(tmp_path / "output", depends_on=(manifest,))
    place.fly(STUDENT, GOOD)
    place.fly(STUDENT, GOOD)
    assert any("was judged on these items before" in line for line in place.lines)
    manifest.write_text("another")
    place.fly(STUDENT, GOOD)
    assert not any("was judged on these items before" in line for line in place.lines)
