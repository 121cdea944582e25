"""Figures that README and docs/demo.md quote are those of the files they come from: docs/demo.csv of `make demo`,
docs/results.json of `make results`.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
PAGES = {"README.md": README, "docs/demo.md": DEMO}


def read_demo() -> dict[str, dict[str, str]]:
    with open(ROOT / "docs" / "demo.csv", newline="", encoding="utf-8") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def read_results() -> dict[str, Any]:
    return json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))


def show_auc(row: dict[str, str], kind: str) -> str:
    value, low, high = (float(row[f"frame_auc{part}@{kind}"]) for part in ("", "_low", "_high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]".replace("0.", ".")


@pytest.mark.parametrize("page", list(PAGES))
def test_the_table_of_the_demo_has_the_figures_of_its_comparison(page: str) -> None:
    rows = {
        cells[0]: cells[1:]
        for cells in (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in (README if page == "README" else DEMO).splitlines()
        )
        if cells[0] in read_demo()
    }
    expected = {
        name: [
            f"{float(row['parameters']) / 1e6:.2f} M",
            f"{float(row['val_auc']):.4f}",
            f"{float(row['latency_ms']):.1f} ms",
            show_auc(row, "self-blends"),
            show_auc(row, "swaps"),
        ]
        for name, row in read_demo().items()
    }
    assert rows == expected


def test_the_curves_are_of_the_run_in_the_table() -> None:
    with Image.open(ROOT / "docs" / "pictures" / "demo_curves.png") as picture:
        shown = picture.info["val_auc"]
    assert shown == read_demo()["Student + distillation"]["val_auc"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("teacher", "teacher"),
        ("student", "stage 1"),
        ("hard", "further steps"),
        ("distill", "distillation"),
    ],
)
def test_a_quoted_auc_of_three_seeds_is_that_of_the_results(model: str, words: str) -> None:
    quoted = re.search(rf"{words}\s+(0\.\d+)", DEMO[DEMO.index("`make results`") :])
    assert quoted is not None
    assert quoted[1] == f"{read_results()['models'][model]['test_auc']['value']:.3f}"


def test_a_quoted_difference_is_one_of_the_results() -> None:
    quoted = re.findall(r"[-+]0\.\d{3}", DEMO[DEMO.index("`make results`") : DEMO.index("![training curves")])
    measured = {
        f"{number:+.3f}"
        for row in read_results()["differences"].values()
        for number in (row["value"], row["low"], row["high"])
    }
    assert quoted
    assert set(quoted) <= measured


def test_the_readme_is_short_and_quotes_the_card_of_the_model_that_comes_with_the_package() -> None:
    assert len(README.splitlines()) <= 250
    card = (ROOT / "lib/sharpstudent/shipped/deepfake-small.md").read_text(encoding="utf-8")
    figures = re.search(r"^\| AUC .*?\| 0(\.\d+) .*?\| 0(\.\d+) ", card, re.MULTILINE)
    assert figures is not None
    assert f"(frame AUC {figures[1]} on self-blends of 52 held-out people, {figures[2]} on face swaps of 41" in README
