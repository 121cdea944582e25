"""The table of models and the guide's bands: every value in its column, within 80 columns."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from rich.console import Console
from sharpstudent.report.results import CostResult, MetricValue, Role
from sharpstudent.tasks.deepfake.report.guide import list_bands
from sharpstudent.tasks.deepfake.report.model_table import render_csv, render_markdown, render_tables
from sharpstudent.tasks.deepfake.report.results import ComparisonResult, ModelResult, Results


def make_model(name: str, role: Role = "model", **changes: Any) -> ModelResult:
    made: dict[str, Any] = {
        "file": "best_model.pth",
        "sha256": "0" * 64,
        "architecture": "mobilevitv2_200",
        "image_size": 380,
        "validation": {"val_auc": 0.9123},
        "figures": {"frame_auc@test": MetricValue(value=0.9021, low=0.8803, high=0.9274)},
        "cost": CostResult(
            parameters=17_430_000,
            macs=15_960_000_000,
            file_bytes=70_000_000,
            latency_ms=30.0,
            latency_p95_ms=33.0,
            memory_bytes=250_000_000,
            device="CPU",
        ),
    }
    return ModelResult(name=name, role=role, **(made | changes))


def make_results(*models: ModelResult, comparisons: tuple[ComparisonResult, ...] = ()) -> Results:
    return Results(
        title="t",
        made_at="2026-11-23T00:00:00Z",
        command="c",
        verdict=(),
        protocol={},
        data=(),
        models=models,
        comparisons=comparisons,
    )


def draw(results: Results, width: int = 80) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False)
    for table in render_tables(results):
        console.print(table)
    return file.getvalue()


AGREEMENT = ComparisonResult(
    a="student",
    b="teacher",
    figure="frame_auc@test",
    difference=MetricValue(value=-0.02),
    p_value=None,
    agreement=0.912,
)


def test_the_guides_table_comes_first_and_the_rest_behind_it() -> None:
    results = make_results(
        make_model("teacher", "teacher"), make_model("student", "distilled"), comparisons=(AGREEMENT,)
    )
    head, _, line, *_ = (line for line in draw(results).splitlines() if line.strip())
    assert head.split() == ["Model", "Parameters", "Val", "AUC", "Inference", "time"]
    assert line.split() == ["teacher", "17.43", "M", "0.9123", "30.0", "ms"]
    markdown = render_markdown(results)
    assert markdown.startswith(
        "| Model | Parameters | Val AUC | Inference time | test: frame AUC [95 %] | MACs | File |"
    )
    assert "| student | 17.43 M | 0.9123 | 30.0 ms | .902 [.880, .927] |" in markdown
    assert "| 91.2 % |" in markdown


@pytest.mark.parametrize(
    "name", ["student", "x" * 60, "Student (mobilevitv2_200) + distillation [seed 5] of a long name"]
)
def test_nothing_is_wider_than_80_columns_and_no_number_is_truncated(name: str) -> None:
    figures = {
        f"{level}@{data}": MetricValue(value=0.9021, low=0.8803, high=0.9274)
        for level in ("frame_auc", "video_auc_mean")
        for data in ("test", "another_set_with_a_long_name")
    }
    text = draw(
        make_results(make_model(name, "distilled", figures=figures), make_model("teacher", "teacher"), comparisons=())
    )
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert text.count(".902 [.880, .927]") == 5
    for cell in ("17.43 M", "0.9123", "30.0 ms", "70.0 MB", "250.0 MB", "33.0 ms"):
        assert text.count(cell) == 2


def test_what_is_not_known_is_a_dash_and_an_empty_column_is_left_out() -> None:
    bare = ModelResult(name="m.onnx", file="m.onnx", sha256="0", architecture=None, image_size=None)
    text = draw(make_results(bare))
    assert "MACs" not in text
    assert "Frame AUC" not in text
    assert text.splitlines()[3].split() == ["m.onnx", "–", "–", "–"]
    assert render_markdown(make_results(bare)).splitlines()[2] == "| m.onnx | – | – | – |"
    assert draw(make_results(bare, make_model("other"))).count("–") >= 3


def test_csv_has_every_number_in_full() -> None:
    results = make_results(
        make_model("teacher", "teacher"), make_model("student", "distilled", cost=None), comparisons=(AGREEMENT,)
    )
    teacher, student = csv.DictReader(io.StringIO(render_csv(results)))
    assert float(teacher["frame_auc_low@test"]) == 0.8803
    assert int(teacher["macs"]) == 15_960_000_000
    assert teacher["agreement_with_teacher@test"] == ""
    assert float(student["agreement_with_teacher@test"]) == 0.912
    assert student["parameters"] == ""
    assert float(student["val_auc"]) == 0.9123


def test_names_with_markup_are_printed_literally() -> None:
    results = make_results(make_model("a|b[red]<b>\nc"))
    assert r"| a\|b\[red\]\<b\> c | 17.43 M |" in render_markdown(results)
    assert "a|b[red]<b>" in draw(results)
    (line,) = csv.DictReader(io.StringIO(render_csv(results)))
    assert line["model"] == "a|b[red]<b>\nc"


def three() -> tuple[ModelResult, ...]:
    return (
        make_model("t", "teacher", validation={"val_auc": 0.95}),
        make_model("s", "before", validation={"val_auc": 0.87}),
        make_model("d", "distilled", validation={"val_auc": 0.89}),
    )


def test_on_the_guides_data_each_metric_is_compared_with_its_band() -> None:
    bands = {band.what: band for band in list_bands(three(), epoch_seconds={"s": 90.0, "d": 150.0})}
    assert len(bands) == 3 + 4 + 4 + 1
    for what, expected, measured in (
        ("Teacher: best validation AUC", "0.94-0.96", "0.9500: inside the band"),
        ("Teacher: parameters", "about 19 M", "17.43 M: inside the band"),
        ("Teacher: time for one picture", "50 ms", "30.0 ms on CPU: below the band"),
        ("Student pre-trained (stage 1): best validation AUC", "0.88-0.92", "0.8700: below the band"),
        ("Student pre-trained (stage 1): time for one picture", "30 ms", "30.0 ms on CPU: inside the band"),
        ("Student pre-trained (stage 1): 100 epochs of training", "2-3 hours", "2.5 hours: inside the band"),
        ("Student + distillation (stage 2): parameters", "about 18 M", "17.43 M: inside the band"),
        ("Student + distillation (stage 2): best validation AUC", "0.90-0.94", "0.8900: below the band"),
        ("Student + distillation (stage 2): 100 epochs of training", "3-4 hours", "4.2 hours: above the band"),
        ("Gain of stage 2 over stage 1, validation AUC", "1-3 %", "+2.0 %: inside the band"),
    ):
        assert bands[what].expected == f"{expected} (FaceForensics++, 380 px)"
        assert bands[what].measured == measured


def test_missing_measurements_are_named_and_models_without_roles_have_no_band() -> None:
    assert list_bands([make_model("m")]) == ()
    bare = make_model("t", "teacher", cost=None, validation={})
    assert [band.measured for band in list_bands([bare])] == ["not measured"] * 3
