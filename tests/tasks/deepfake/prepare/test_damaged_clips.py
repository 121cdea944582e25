"""Damaged files: each gives faces or a reason, and none hangs. 30 here, 500 with the slow tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from damaged_clips import crop_damaged_clips

SECONDS = 60.0  # a whole clip takes two; what takes this long is stuck


def test_30_damaged_files_are_cropped_or_rejected_and_none_hangs(tmp_path: Path) -> None:
    tally = crop_damaged_clips(30, tmp_path, seed=1, seconds=SECONDS)
    assert (tally.died, tally.hung) == ([], []), tally
    assert tally.cropped + tally.rejected == 30
    assert tally.cropped > 0
    assert tally.rejected > 0


@pytest.mark.slow
def test_500_damaged_files_are_cropped_or_rejected_and_none_hangs(tmp_path: Path) -> None:
    tally = crop_damaged_clips(500, tmp_path, seed=2, seconds=SECONDS)
    print(tally)
    assert tally.hung == [], tally
    assert tally.died == [], tally
    assert tally.cropped + tally.rejected == 500
