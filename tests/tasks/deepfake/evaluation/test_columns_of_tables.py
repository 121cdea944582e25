"""Errors by columns of the user's own table: through prepare_faces.py into the set, and from a table of files."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import jsonschema
import pytest
import torch
from block_clips import draw_blocks, write_picture
from block_sets import prepare, use_block_networks
from sharpstudent.models.vision import build_classifier
from workplace import ROOT, Ended, Workplace

COLUMNS = "path,label,person,sex,age\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Generator[Workplace]:
    """A folder with a detector, and eight pictures of four people with a table."""
    place = Workplace(tmp_path_factory.mktemp("columns"))
    torch.save(build_classifier("test_resnet", classes=2, dropout=None).state_dict(), place / "model.pth")
    lines = [
        f"{label}/{person}.png,{label},{person},{'mf'[person % 2]},{20 + person}\n"
        for label in ("real", "fake")
        for person in range(4)
    ]
    for number, line in enumerate(lines):
        left = 40 + number  # no two are equal
        write_picture(place / "photos" / line.partition(",")[0], draw_blocks((left, 40, left + 100, 160)))
    (place / "photos/table.csv").write_text(COLUMNS + "".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        use_block_networks(patch)
        yield place


def evaluate(place: Workplace, *words: str) -> Ended:
    model = ("model.pth", "--architecture", "test_resnet", "--image-size", "64")
    fast = ("--rounds", "20", "--workers", "0", "--device", "cpu", "--out", "out")
    return place.call("evaluate_model.py", *model, *words, *fast)


def read_errors(place: Workplace, *words: str) -> list[dict[str, Any]]:
    """The errors by group of an evaluation, whose results match their schema."""
    ended = evaluate(place, *words)
    assert ended.code == 0, ended.err
    results = json.loads((place / "out/results.json").read_text())
    jsonschema.validate(results, json.loads((ROOT / "docs/results.schema.json").read_text()))
    return results["models"][0]["by_group"]


def test_columns_of_a_table_go_through_a_prepared_set_into_the_errors_by_group(place: Workplace) -> None:
    prepare(place / "photos/table.csv", place / "made")
    moved = (place / "made").rename(place / "moved")
    assert (moved / "columns.csv").read_text().splitlines()[:2] == ["clip,person,sex,age", "fake/0,0,m,20"]
    sex, age = read_errors(place, "--data", "moved", "--split", "all", "--by", "sex,age")
    assert [(one["value"], one["real"], one["fake"], one["people"]) for one in sex["groups"]] == [
        ("f", 2, 2, 2),
        ("m", 2, 2, 2),
    ]
    assert ([one["value"] for one in age["groups"]], sex["without"]) == (["20", "21", "22", "23"], 0)
    for report in ("report.html", "model_card.md"):
        assert "sex" in (place / "out" / report).read_text()
    refused = evaluate(place, "--data", "moved", "--split", "all", "--by", "hat")
    assert refused.code == 2
    assert "columns.csv: lacks the column hat" in refused.err


@pytest.mark.parametrize("more", [(), ("--crops",)], ids=["whole pictures", "face crops"])
def test_a_table_of_files_that_is_evaluated_is_also_the_table_of_its_columns(
    place: Workplace, more: tuple[str, ...]
) -> None:
    (sex,) = read_errors(place, "--data", "photos/table.csv", *more, "--by", "sex")
    assert [(one["value"], one["real"], one["fake"]) for one in sex["groups"]] == [("f", 2, 2), ("m", 2, 2)]
    assert sex["without"] == 0


def test_data_without_a_table_is_refused_before_faces_are_cropped(place: Workplace) -> None:
    refused = evaluate(place, "--data", "photos", "--by", "sex")
    assert refused.code == 2
    assert "names columns, but no table has them" in refused.err
    assert "--by-table people.csv" in refused.err


def test_a_table_that_changes_makes_no_crop_anew(place: Workplace) -> None:
    table, made = place / "photos/table.csv", place / "again"
    prepare(table, made)
    before = (made / "manifest.arrow").read_bytes()
    table.write_text(table.read_text().replace(",f,", ",x,"))
    prepare(table, made)
    assert "fake/1,1,x,21" in (made / "columns.csv").read_text()
    assert (made / "manifest.arrow").read_bytes() == before
