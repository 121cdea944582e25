"""Damaged files: each gives faces or a reason, and no hang. 30 here, 500 with the slow tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants import cut_mutants

SECONDS = 60.0  # a whole clip takes two; what takes this long is stuck


def test_30_mutants_are_cut_or_rejected_and_none_hangs(tmp_path: Path) -> None:
    tally = cut_mutants(30, tmp_path, seed=1, seconds=SECONDS)
    assert (tally.died, tally.hung) == ([], []), tally
    assert tally.cut + tally.rejected == 30
    assert tally.cut > 0
    assert tally.rejected > 0


@pytest.mark.slow
def test_500_mutants_are_cut_or_rejected_and_none_hangs(tmp_path: Path) -> None:
    tally = cut_mutants(500, tmp_path, seed=2, seconds=SECONDS)
    print(tally)
    assert tally.hung == [], tally
    assert tally.died == [], tally
    assert tally.cut + tally.rejected == 500
