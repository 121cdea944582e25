"""The charts of a report: they show the measured values, as SVG, PNG and CSV, readable for everyone."""

from __future__ import annotations

import csv
import io
import itertools
import re
from functools import cache
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from example_results import make_results, make_training
from PIL import Image
from scipy.special import ndtri
from sharpstudent.report.chart import (
    DARK_PAPER,
    DARK_SERIES,
    DASHES,
    LIGHT_PAPER,
    LIGHT_SERIES,
    MARKERS,
    PAPER_PALETTE,
    Chart,
    Key,
    Palette,
    make_inline_svg,
    render_csv,
    render_png,
    render_svg,
)
from sharpstudent.report.curves import build_training, describe_constants, name_column
from sharpstudent.report.results import MetricValue, TrainingResult
from sharpstudent.tasks.deepfake.report.charts import (
    CURVES,
    build_charts,
    build_curve,
    build_robustness,
    name_severities,
)
from sharpstudent.tasks.deepfake.report.results import (
    CorruptionCurve,
    CorruptionPoint,
    CurvePoints,
    Drawing,
    ModelResult,
    ReliabilityBins,
    Results,
    ScoreHistogram,
)


@cache
def made() -> Results:
    return make_results(models=2, clips=24, frames_each=3, rounds=5)


def draw(chart: Chart) -> Any:
    """The matplotlib figure of a chart."""
    from matplotlib.figure import Figure

    figure = Figure()
    chart.draw(figure, PAPER_PALETTE)
    return figure


def read_csv(chart: Chart) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_csv(chart))))


def first_drawing(model: ModelResult) -> Drawing:
    """That of the first source."""
    return next(drawing for drawing in model.drawings if drawing.part)


def find_chart(name: str, results: Results | None = None) -> Chart:
    return next(chart for chart in build_charts(results or made()).list_all() if chart.name == name)


def make_drawing(fpr: list[float], fnr: list[float], *, reals: int = 100, fakes: int = 100) -> Drawing:
    """A drawing whose ROC and DET go through these rates."""
    thresholds = (None, *(float(-i) for i in range(1, len(fpr))))

    def curve(x: list[float], y: list[float], names: tuple[str, str]) -> CurvePoints:
        return CurvePoints(x_name=names[0], y_name=names[1], x=tuple(x), y=tuple(y), thresholds=thresholds)

    tpr = [1 - rate for rate in fnr]
    return Drawing(
        level="frame",
        part="",
        roc=curve(fpr, tpr, ("fpr", "tpr")),
        pr=curve(tpr, tpr, ("recall", "precision")),
        det=curve(fpr, fnr, ("fpr", "fnr")),
        reliability=ReliabilityBins(edges=(0, 1), counts=(reals + fakes,), said=(0.5,), true=(0.5,)),
        histogram=ScoreHistogram(edges=(0.0, 0.5, 1.0), real=(reals, 0), fake=(0, fakes)),
    )


def find_luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def find_contrast(one: str, other: str) -> float:
    dark, light = sorted((find_luminance(one), find_luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("colours", "paper"), [(LIGHT_SERIES, LIGHT_PAPER), (DARK_SERIES, DARK_PAPER)])
def test_every_colour_has_enough_contrast_with_its_background(colours: tuple[str, ...], paper: str) -> None:
    assert len(set(colours)) == 8
    assert min(find_contrast(colour, paper) for colour in colours) >= 3.0


# Machado, Oliveira & Fernandes 2009, severity 1: of linear RGB as protanopes and deuteranopes see it.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("kind", BLIND)
@pytest.mark.parametrize("colours", [LIGHT_SERIES, DARK_SERIES])
def test_the_first_four_colours_differ_for_readers_who_do_not_tell_red_from_green(
    kind: str, colours: tuple[str, ...]
) -> None:
    seen = []
    for colour in colours[:4]:
        value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        seen.append(np.clip(BLIND[kind] @ linear, 0, 1) ** (1 / 2.4))
    apart = [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)]
    assert min(apart) > 0.12, np.round(apart, 3)


def test_no_two_of_sixteen_series_have_dash_marker_and_colour_in_common() -> None:
    styles = [(str(PAPER_PALETTE.line(n)), str(PAPER_PALETTE.marker(n))) for n in range(16)]
    assert len(set(styles)) == 16
    assert len({line for line, _ in styles[:8]}) == len({marker for _, marker in styles[:8]}) == 8
    assert len(set(map(str, DASHES))) == len(set(MARKERS)) == 8


def test_a_chart_for_the_page_takes_its_colours_and_letters_from_the_page() -> None:
    svg = render_svg(find_chart("roc-frame-demo-faces"))
    assert not re.findall(r"#[0-9a-fA-F]{6}\b|#[0-9a-fA-F]{3}\b", re.sub(r'href="#[^"]+"', "", svg))
    assert {"var(--s0)", "var(--s1)", "var(--grid)", "currentColor"} <= set(
        re.findall(r"var\(--\w+\)|currentColor", svg)
    )
    assert "font-family" not in svg
    assert "DejaVu" not in svg
    words = [node.text for node in ElementTree.fromstring(svg).iter("text")]
    assert "fakes found (TPR)" in words  # text, not outlines


def test_the_charts_of_a_page_share_no_id_and_every_reference_is_met() -> None:
    svgs = [render_svg(chart) for chart in build_charts(made()).list_all()[:4]]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in svgs]
    assert all(ids)
    assert sum(map(len, ids)) == len(set().union(*ids))
    for svg, own in zip(svgs, ids, strict=True):
        assert set(re.findall(r'href="#([^"]+)"', svg)) <= own
        assert "url(" not in svg
        assert "<style" not in svg  # it would style the whole page
        assert "http" not in svg


def test_text_in_a_drawing_is_never_parsed_as_markup() -> None:
    drawn = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><style>*{}</style>'
        '<text style="font: 10px sans-serif; fill: #00fe80">id="a" href="#a" &lt;b&gt; #00fe80</text></svg>'
    )
    made_svg = make_inline_svg(drawn, name="x", label='"><script>')
    assert 'id="a" href="#a" &lt;b&gt; #00fe80</text>' in made_svg
    assert "<script" not in made_svg
    assert 'style="font-size:10px; fill: currentColor"' in made_svg


def test_coordinates_are_rounded_and_nothing_else() -> None:
    drawn = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M -0.0001 12.34567 L 7.00012 1e3"/></svg>'
    )
    assert '<path d="M 0 12.35 L 7 1e3"' in make_inline_svg(drawn, name="x", label="y")


def test_the_csv_holds_the_numbers_of_the_curve_to_the_last_digit() -> None:
    rows = read_csv(find_chart("roc-frame-demo-faces"))
    for model in made().models:
        roc = first_drawing(model).roc
        own = [row for row in rows if row["model"] == model.name]
        assert [float(row["fpr"]) for row in own] == list(roc.x)
        assert [float(row["tpr"]) for row in own] == list(roc.y)
        assert own[0]["threshold"] == ""  # nothing is called fake there
        assert [float(row["threshold"]) for row in own[1:]] == list(roc.thresholds[1:])


def test_the_lines_of_the_roc_are_its_points() -> None:
    axes = draw(find_chart("roc-frame-demo-faces")).axes[0]
    drawn = [line.get_xydata() for line in axes.get_lines()][1:]  # the first is the diagonal
    for model, points in zip(made().models, drawn, strict=True):
        np.testing.assert_array_equal(points, np.column_stack([first_drawing(model).roc.x, first_drawing(model).roc.y]))


def test_det_axes_are_normal_deviates_and_the_curve_ends_where_it_leaves_them() -> None:
    drawing = make_drawing([0.0, 0.0, 0.1, 0.3, 0.9, 1.0], [1.0, 0.7, 0.3, 0.1, 0.02, 0.0])
    axes = draw(build_curve(CURVES["det"], [(0, "m", drawing)], {}, place="frames, all data", stem="x")).axes[0]
    line = axes.get_lines()[1].get_xydata()
    low, high = axes.get_xlim()
    assert (low, high) == axes.get_ylim()
    assert high == pytest.approx(ndtri(0.6))
    assert low == pytest.approx(ndtri(0.005) - 0.05)  # half of one real among 100
    assert line.max() <= high + 1e-12
    assert line[0, 1] == pytest.approx(high)
    assert line[-1, 0] == pytest.approx(high)
    inner = [(ndtri(a), ndtri(b)) for a, b in ((0.1, 0.3), (0.3, 0.1))]
    for point in inner:
        assert np.abs(line - point).sum(axis=1).min() < 1e-9
    share = (high - ndtri(0.3)) / (ndtri(0.9) - ndtri(0.3))  # on the straight line to the point outside
    assert line[-1, 1] == pytest.approx(ndtri(0.1) + share * (ndtri(0.02) - ndtri(0.1)))


@pytest.mark.parametrize(
    ("fpr", "fnr"),
    [([0.0, 0.0, 1.0], [1.0, 0.0, 0.0]), ([0.0, 1.0, 1.0], [1.0, 1.0, 0.0]), ([0.0, 1.0], [1.0, 0.0])],
    ids=["perfect", "all wrong", "no idea"],
)
def test_curves_of_the_best_and_the_worst_models_are_drawn(fpr: list[float], fnr: list[float]) -> None:
    drawn = [(0, "m", make_drawing(fpr, fnr)), (1, "n", make_drawing([0.0, 0.2, 1.0], [1.0, 0.2, 0.0]))]
    for kind in CURVES.values():
        chart = build_curve(kind, drawn, {"m": "1"}, place="frames", stem="x")
        assert render_svg(chart).count("<path") > 5
        assert np.asarray(Image.open(io.BytesIO(render_png(chart)))).std() > 5


def test_the_alt_text_gives_the_main_number_of_each_model() -> None:
    charts = build_charts(made())
    for chart, figure in zip(charts.curves[0].charts[:4], ("auc", "ap", "eer", "ece"), strict=True):
        for model, key in zip(made().models, chart.keys, strict=True):
            value = model.figures[f"frame_{figure}@demo_faces"].value
            assert value is not None
            said = f"{100 * value:.1f}\u00a0%" if figure == "eer" else f"{value:.3f}"[1:]
            assert f"{model.name} {said}" in chart.alt
            assert key.value.endswith(said)


def test_each_source_has_curves_frames_before_videos_and_no_pool_of_sources() -> None:
    titles = [group.title for group in build_charts(made()).curves]
    assert titles[:2] == ["frames, demo_faces", "frames, swaps"]
    assert len(titles) == 4


def test_reliability_leaves_out_empty_bins() -> None:
    bins = ReliabilityBins(edges=(0, 0.5, 1), counts=(0, 4), said=(None, 0.8), true=(None, 0.75))
    model = made().models[0]
    drawing = model.drawings[0].model_copy(update={"reliability": bins})
    results = made().model_copy(update={"models": (model.model_copy(update={"drawings": (drawing,)}),)})
    chart = find_chart("reliability-frame-all", results)
    assert draw(chart).axes[0].get_lines()[1].get_xydata().tolist() == [[0.8, 0.75]]
    assert read_csv(chart)[0]["said"] == ""


def test_bins_of_few_samples_are_hollow_and_calibrated_probabilities_are_named_so() -> None:
    plain = ReliabilityBins(edges=(0, 0.5, 1), counts=(30, 4), said=(0.2, 0.8), true=(0.3, 0.75))
    after = ReliabilityBins(edges=(0, 0.5, 1), counts=(24, 25), said=(0.3, 0.6), true=(0.3, 0.6))
    model = made().models[0]
    for calibrated, name, hollow in ((None, "probability of fake", [[0.8, 0.75]]), (after, "calibrated", [[0.3, 0.3]])):
        update = {"reliability": plain, "reliability_calibrated": calibrated}
        drawing = model.drawings[0].model_copy(update=update)
        figures = {**model.figures, "frame_ece_calibrated": MetricValue(value=0.0123)}
        one = model.model_copy(update={"drawings": (drawing,), "figures": figures})
        chart = find_chart("reliability-frame-all", made().model_copy(update={"models": (one,)}))
        axes = draw(chart).axes[0]
        assert axes.get_xlabel().startswith(name)
        assert axes.get_lines()[2].get_xydata().tolist() == hollow
        assert axes.get_lines()[2].get_markerfacecolor() == "none"
        assert "Hollow: fewer than 25 samples" in chart.hint
        assert {row["calibrated"] for row in read_csv(chart)} == {str(int(calibrated is not None))}
        assert (chart.keys[0].value == "ECE .012") == (calibrated is not None)


def test_what_is_the_same_in_every_epoch_is_said_and_not_drawn() -> None:
    columns = {"epoch": (1.0, 2.0), "rho": (0.05, 0.05), "lr": (0.1, 0.01), "alpha": (0.5, 0.5)}
    training = TrainingResult(columns=columns, best_epoch=2, metric="val_auc")
    assert [chart.title for chart in build_training(training)] == ["Learning rate"]
    assert describe_constants(training) == "The same in every epoch, and not drawn: rho 0.05; alpha 0.5."
    assert len(build_training(training, with_constants=True)) == 3
    once = TrainingResult(columns={"epoch": (1.0,), "rho": (0.05,)}, best_epoch=1, metric="val_auc")
    assert len(build_training(once)) == 1  # one epoch shows no constant


def test_histograms_are_shares_of_each_class() -> None:
    figure = draw(find_chart("scores-frame-demo-faces"))
    assert len(figure.axes) == 2
    for axes, model in zip(figure.axes, made().models, strict=True):
        values = [patch.get_data().values for patch in axes.patches]
        assert [float(v.sum()) for v in values] == pytest.approx([1.0, 1.0])
        real = np.array(first_drawing(model).histogram.real)
        np.testing.assert_allclose(values[0], real / real.sum())


def make_curve(labels: list[str], severities: list[float], aucs: list[float | None]) -> CorruptionCurve:
    points = tuple(
        CorruptionPoint(strength=s, label=name, auc=MetricValue(value=auc))
        for s, name, auc in zip(severities, labels, aucs, strict=True)
    )
    return CorruptionCurve(name="jpeg", unit="quality", points=points, area=None)


def test_severities_are_numbers_if_labels_only_add_the_unit() -> None:
    assert name_severities(make_curve(["none", "quality 50"], [100, 50], [1, 1])) == ["none", "50"]
    assert name_severities(make_curve(["none", "one messenger"], [0, 2], [1, 1])) == ["none", "one messenger"]


def test_robustness_charts_share_one_scale_and_give_the_area() -> None:
    charts = build_robustness(made().models)
    assert len(charts) == len(made().models[0].robustness)
    assert len({draw(chart).axes[0].get_ylim() for chart in charts}) == 1
    area = made().models[0].robustness[0].area
    assert area is not None
    assert charts[0].keys[0].value == f"area {f'{area:.3f}'[1:]}"


def test_a_severity_without_a_value_leaves_a_gap_and_no_error() -> None:
    curve = make_curve(["none", "quality 50", "quality 30"], [100, 50, 30], [0.9, None, 0.2])
    chart = build_robustness([made().models[0].model_copy(update={"robustness": (curve,)})])[0]
    axes = draw(chart).axes[0]
    assert axes.get_lines()[1].get_ydata().tolist() == [0.9, 0.2]
    assert axes.get_ylim()[0] <= 0.2
    assert chart.keys[0].value == "area –"
    assert render_svg(chart)


def test_training_shows_alpha_and_temperature_and_only_what_there_is() -> None:
    charts = {chart.title: chart for chart in build_training(make_training())}
    assert [key.name for key in charts["Weights of the loss terms"].keys] == [
        "alpha (hard weight)",
        "distillation weight",
    ]
    assert charts["Temperature"].columns == ("epoch", "kd/temperature")
    columns = [column for chart in charts.values() for column in chart.columns if column != "epoch"]
    assert len(columns) == len(set(columns))
    assert "val_never" not in columns
    alone = build_training(TrainingResult(columns={"val_auc": (0.5,)}, best_epoch=1, metric="val_auc"))
    assert [chart.title for chart in alone] == ["Validation AUC and AP"]
    assert build_training(TrainingResult(columns={}, best_epoch=None, metric="val_auc")) == []


def test_training_marks_the_epoch_that_was_selected_and_leaves_gaps() -> None:
    training = TrainingResult(
        columns={"epoch": (1.0, 2.0, 3.0), "val_auc": (0.5, None, 0.7)}, best_epoch=3, metric="val_auc"
    )
    (chart,) = build_training(training)
    axes = draw(chart).axes[0]
    assert list(axes.get_lines()[0].get_xdata()) == [3, 3]
    assert axes.get_lines()[1].get_xydata().tolist() == [[1.0, 0.5], [3.0, 0.7]]
    assert [row["val_auc"] for row in read_csv(chart)] == ["0.5", "", "0.7"]


def test_columns_are_named_in_words() -> None:
    assert name_column("val_video_auc") == "validation video AUC"
    assert name_column("kd/temperature") == "distillation temperature"


def test_pngs_have_a_white_background_and_name_every_series() -> None:
    charts = [
        find_chart("roc-frame-demo-faces", made().model_copy(update={"models": made().models[:n]})) for n in (1, 2)
    ]
    pictures = [np.asarray(Image.open(io.BytesIO(render_png(chart))).convert("RGB")) for chart in charts]
    assert all((picture[:4] == 255).all() for picture in pictures)
    assert pictures[1].shape[0] > pictures[0].shape[0]  # a line more in the legend


def test_names_with_dollars_are_drawn_as_they_are() -> None:
    def draw_nothing(figure: Any, palette: Palette) -> None:
        figure.add_subplot().set_xlabel("$x^2$ $\\frac$")

    chart = Chart("c", "$\\bad$", "alt", "", draw_nothing, ("a",), (("$",),), (Key(0, "$\\frac$ 漢字"),))
    assert render_png(chart)
    assert "$x^2$ $\\frac$" in render_svg(chart)


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    render_svg(find_chart("roc-frame-demo-faces"))
    assert dict(matplotlib.rcParams) == before
