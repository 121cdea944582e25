"""The comparison table, to the letter."""

import io

import pytest
from rich.console import Console
from sharpstudent.report.results import CostResult, ModelBase
from sharpstudent.report.text import format_milliseconds, format_parameters
from sharpstudent.report.text_table import draw_console_table, list_guide_columns, to_markdown


def make_model(name: str, parameters: int, latency: float | None) -> ModelBase:
    cost = CostResult(
        parameters=parameters,
        macs=None,
        file_bytes=1,
        latency_ms=latency,
        latency_p95_ms=None,
        memory_bytes=None,
        device="CPU",
    )
    return ModelBase(name=name, file="m.pth", sha256=None, architecture=None, cost=cost)


MODELS = [
    make_model("Teacher (tf_efficientnet_lite0)", 3_373_570, 12.34),
    make_model("Student (mobilevitv2_050) pre-trained", 1_115_000, 6.0),
    make_model("Student + distillation", 1_115_000, 0.4567),
]
COLUMNS = list_guide_columns(MODELS, ["0.8612", "0.7000 [0.61, 0.79]", "0.8123 [0.75, 0.87]"], metric="Val AUC")


def test_the_markdown_table_is_the_seeds() -> None:
    assert to_markdown(COLUMNS, words=["Model"]) == (
        "| Model | Parameters | Val AUC | Inference time |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| Teacher (tf_efficientnet_lite0) | 3.37 M | 0.8612 | 12.3 ms |\n"
        "| Student (mobilevitv2_050) pre-trained | 1.11 M | 0.7000 [0.61, 0.79] | 6.0 ms |\n"
        "| Student + distillation | 1.11 M | 0.8123 [0.75, 0.87] | 0.46 ms |\n"
    )


def test_names_have_no_effect_and_what_is_not_known_is_a_dash() -> None:
    columns = list_guide_columns([make_model("a|b", 12_345, None)], ["–"], metric="Val AUC")
    assert to_markdown(columns, words=["Model"]).endswith("| a\\|b | 12.3 k | – | – |\n")


def test_the_console_shows_the_same_cells_brackets_included() -> None:
    file = io.StringIO()
    Console(file=file, width=120).print(draw_console_table(COLUMNS, words=["Model"]))
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
