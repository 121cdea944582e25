"""The comparison table, to the letter."""

import io

import pytest
from rich.console import Console
from sharpstudent.report.text import ComparisonRow, format_milliseconds, format_parameters, to_markdown, to_rich

ROWS = [
    ComparisonRow("Teacher (tf_efficientnet_lite0)", 3_373_570, "0.8612", 12.34),
    ComparisonRow("Student (mobilevitv2_050) pre-trained", 1_115_000, "0.7000 [0.61, 0.79]", 6.0),
    ComparisonRow("Student + distillation", 1_115_000, "0.8123 [0.75, 0.87]", 0.4567),
]


def test_the_markdown_table_is_the_seeds() -> None:
    assert to_markdown(ROWS, metric="Val AUC") == (
        "| Model | Parameters | Val AUC | Inference time |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| Teacher (tf_efficientnet_lite0) | 3.37 M | 0.8612 | 12.3 ms |\n"
        "| Student (mobilevitv2_050) pre-trained | 1.11 M | 0.7000 [0.61, 0.79] | 6.0 ms |\n"
        "| Student + distillation | 1.11 M | 0.8123 [0.75, 0.87] | 0.46 ms |\n"
    )


def test_extra_columns_follow_and_may_be_missing_in_a_row() -> None:
    rows = [
        ComparisonRow("a|b", 12_345, "–", None, extra={"Seeds": "3"}),
        ComparisonRow("c", 19_340_000, "–", 50.0, extra={"Size": "77 MB"}),
    ]
    assert to_markdown(rows, metric="Val AUC") == (
        "| Model | Parameters | Val AUC | Inference time | Seeds | Size |\n"
        "| --- | ---: | ---: | ---: | --- | --- |\n"
        "| a\\|b | 12.3 k | – | – | 3 |  |\n"
        "| c | 19.34 M | – | 50.0 ms |  | 77 MB |\n"
    )


def test_the_console_shows_the_same_cells_brackets_included() -> None:
    file = io.StringIO()
    Console(file=file, width=120).print(to_rich(ROWS, metric="Val AUC", title="demo"))
    text = file.getvalue()
    for cell in ("Model", "Parameters", "Val AUC", "Inference time", "3.37 M", "0.8123 [0.75, 0.87]", "0.46 ms"):
        assert cell in text


@pytest.mark.parametrize(
    ("count", "text"), [(18_446_000, "18.45 M"), (100_000, "0.10 M"), (99_999, "100.0 k"), (42, "0.0 k")]
)
def test_parameters_are_counted_in_millions(count: int, text: str) -> None:
    assert format_parameters(count) == text


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1234.5 ms"), (1.0, "1.0 ms"), (0.004, "0.00 ms"), (None, "–")])
def test_times_are_in_milliseconds(value: float | None, text: str) -> None:
    assert format_milliseconds(value) == text
