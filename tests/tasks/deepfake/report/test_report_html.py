"""The report's page and files: they are complete and safe, whatever names the data has."""

from __future__ import annotations

import html
import io
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from page_sentences import count_words, list_parted, list_sentences
from PIL import Image

ROOT = Path(__file__).resolve().parents[4]

from example_results import PROTOCOL, make_mistakes, make_pictures, make_results, make_training
from sharpstudent.core.errors import UserError
from sharpstudent.core.naming import make_slug, make_unique, printable, shorten, shorten_names
from sharpstudent.report.results import MetricValue
from sharpstudent.report.sentences import MOST_WORDS
from sharpstudent.report.summary import say_tiles
from sharpstudent.report.text import (
    bind_units,
    format_bytes,
    format_difference,
    format_interval,
    format_macs,
    format_moment,
    format_p_value,
    format_probability,
    format_value,
)
from sharpstudent.tasks.deepfake.report.charts import build_charts
from sharpstudent.tasks.deepfake.report.page import render_page, write_report
from sharpstudent.tasks.deepfake.report.pictures import MOST_CARDS, SIDE, ReportPicture, build_mistakes
from sharpstudent.tasks.deepfake.report.results import Results
from sharpstudent.tasks.deepfake.report.words import describe_metric, find_label, split_name

VOID = {"meta", "br", "img", "link", "input", "hr", "wbr", "path", "rect", "use", "line", "circle"}
NASTY = "<script>alert(1)</script>\"'&`{{ 7*7 }}{% x %}$x$ 漢字 \u202eevil\u2066 \u05d0\u05d1 end"
MODEL_COUNT = 2


@dataclass
class Read(HTMLParser):
    """A page as a reader has it."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def list_of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def find_headings(self) -> list[int]:
        return [int(tag[1]) for tag, _ in self.tags if re.fullmatch(r"h[1-6]", tag)]


def read(page: str) -> Read:
    found = Read()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


def render(results: Results, pictures: list[ReportPicture] | None = None) -> str:
    return render_page(results, build_charts(results), make_pictures(8) if pictures is None else pictures)


@cache
def made() -> Results:
    return make_results(models=MODEL_COUNT, clips=24, frames_each=3, rounds=10)


@cache
def made_page() -> str:
    return render(made())


@cache
def small() -> Results:
    """Few charts."""
    results = made()
    first = results.models[0]
    assert results.training is not None
    kept = ("epoch", "val_auc", "hard/weight")
    columns = {name: results.training.columns[name] for name in kept}
    model = first.model_copy(update={"drawings": first.drawings[:1], "robustness": first.robustness[:1]})
    training = results.training.model_copy(update={"columns": columns})
    return results.model_copy(update={"models": (model,), "training": training, "mistakes": results.mistakes[:4]})


def make_bare(**more: object) -> Results:
    return Results(
        **{  # type: ignore[arg-type]
            "title": "Nothing yet", "made_at": "2026-08-08T12:30:00+00:00", "command": "x", "verdict": (),
            "protocol": {}, "data": (), "models": (), **more,
        }
    )  # fmt: skip


def rename_all(results: Results, name: str) -> Results:
    """Results in which every name from a user is `name`: models, sources, kinds, samples, clips, corruptions, keys."""
    first = results.models[0]
    source = name.replace("/", " ")
    figures = {key: value for key, value in first.figures.items() if "@" not in key}
    figures |= {f"frame_auc@{source}": MetricValue(value=0.5), f"frame_auc@{source}/{name}": MetricValue(value=0.5)}
    parts = [drawing.model_copy(update={"part": f"@{source}"}) for drawing in first.drawings[:1]]
    model = first.model_copy(
        update={
            "name": name, "file": name, "architecture": name, "trained": {name: name}, "notes": (name,),
            "figures": figures, "drawings": (*first.drawings[:1], *parts),
            "robustness": tuple(c.model_copy(update={"name": name, "unit": name}) for c in first.robustness[:1]),
        }
    )  # fmt: skip
    mistakes = [
        m.model_copy(
            update={
                "model": name,
                "source": source,
                "sample_id": name,
                "clip_id": name,
                "manipulation": name,
                "label": 1,
            }
        )
        for m in results.mistakes[:2]
    ]
    assert results.training is not None
    return results.model_copy(
        update={
            "title": name, "verdict": (name, name), "protocol": {name: name}, "command": name, "notes": (name,),
            "models": (model,), "mistakes": (*mistakes, mistakes[0].model_copy(update={"picture": None})),
            "data": tuple(
                d.model_copy(update={
                    "name": source, "manipulations": {name: 3}, "without_decision": {name: 2}, "faces_rule": name,
                    "notes": (name,), "kind": name,
                })
                for d in results.data[:1]
            ),
            "comparisons": tuple(c.model_copy(update={"a": name, "b": name}) for c in results.comparisons[:1]),
            "config": {name: name}, "environment": {name: {name: [name]}},
            "training": results.training.model_copy(update={"metric": name}),
        }
    )  # fmt: skip


def test_the_page_fetches_nothing_from_anywhere() -> None:
    page = made_page()
    found = read(page)
    for tag, attributes in found.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "video", "audio", "base", "form"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "srcset", "data", "poster", "background", "xlink:href"):
                assert value.startswith("data:image/jpeg;base64,"), (tag, name, value[:80])
            if name == "href":
                assert value.startswith("#") or re.fullmatch(r"figures/[a-z0-9-]+\.(png|csv)", value), value
    assert re.findall(r"""(?:src|href|action)\s*=\s*["']?\s*(?:https?:)?//""", page) == []
    assert "@import" not in page
    assert re.findall(r"url\((?!data:)", page) == []
    assert "http-equiv" in page
    assert "default-src 'none'" in html.unescape(page)


def test_every_link_within_the_page_has_its_place_and_every_id_is_there_once() -> None:
    found = read(made_page())
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {a["href"][1:] for _, a in found.tags if a.get("href", "").startswith("#")}
    wanted |= {a["aria-labelledby"] for _, a in found.tags if "aria-labelledby" in a}
    assert wanted <= set(ids)


def test_the_tiles_come_first_and_the_parts_in_their_order() -> None:
    page = made_page()
    order = "Metrics Comparisons Cost Expected Curves Robustness Training Worst Calibration Protocol Data Models"
    headings = re.findall(r"<h2[^>]*>(\w+)", page)
    assert headings == ["In", "What", "Verdict", *order.split(), "How", "Glossary"]
    assert (
        page.index('<li class="tile">')
        < page.index(bind_units(made().limits[0]))
        < page.index(bind_units(made().verdict[0]))
    )
    assert page.index(bind_units(made().verdict[0])) < page.index("<table")


def test_headings_follow_each_other_without_a_gap_and_there_is_one_title() -> None:
    levels = read(made_page()).find_headings()
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


@cache
def seeds_page() -> str:
    """Three models of two seeds each, without charts."""
    results = make_results(models=3, seeds=2, clips=24, frames_each=2, rounds=5)
    bare = tuple(one.model_copy(update={"drawings": (), "robustness": ()}) for one in results.models)
    return render(results.model_copy(update={"models": bare, "training": None, "mistakes": ()}))


def test_no_sentence_is_long_and_no_number_parts_from_its_unit() -> None:
    for page in (made_page(), seeds_page(), render(small())):
        sentences = list_sentences(page)
        assert len(sentences) > 60
        assert [one for one in sentences if count_words(one) > MOST_WORDS] == []
        assert list_parted(page) == []


def test_the_console_says_what_the_page_begins_with() -> None:
    said = say_tiles(made().tiles)
    assert [line for line in said if not line.startswith(" ")] == [f"{tile.title}:" for tile in made().tiles]
    for tile in made().tiles:
        for value in tile.values:
            assert any(value.model in line and value.word in line for line in said)


def test_each_model_has_a_line_in_each_tile_and_the_main_one_is_the_last_and_largest() -> None:
    page = seeds_page()
    tiles = re.findall(r'<li class="tile">(.*?)</li>', page, re.DOTALL)
    assert len(tiles) == 3
    for tile in tiles:
        assert re.findall(r'<div class="(reading[^"]*)">', tile) == ["reading", "reading", "reading main"]
        assert "mean of 2 seeds" in tile
    assert "another seed may turn the answer" not in page


def test_tables_and_pictures_have_texts_for_screen_readers() -> None:
    found = read(made_page())
    heads = found.list_of("th")
    assert heads
    assert {head.get("scope") for head in heads} == {"col", "row", "rowgroup"}
    charts = [svg for svg in found.list_of("svg") if svg.get("role") == "img"]
    assert len(charts) == len(build_charts(made()).list_all())
    assert all(len(svg["aria-label"]) > 30 for svg in charts)
    auc = format_value(made().models[0].figures["frame_auc@demo_faces"].value, "share")
    assert any(
        svg["aria-label"].startswith("ROC curves, frames, demo_faces") and auc in svg["aria-label"] for svg in charts
    )
    assert all(svg.get("aria-hidden") == "true" for svg in found.list_of("svg") if svg not in charts)
    assert all(image["alt"] for image in found.list_of("img"))
    assert {div["tabindex"] for div in found.list_of("div") if div.get("class") == "scroll"} == {"0"}


def test_sections_without_content_are_absent() -> None:
    page = render(make_bare(), [])
    assert re.findall(r"<h2[^>]*>(\w+)", page) == ["Protocol", "How", "Glossary"]
    assert "<table" not in page
    assert "<svg" not in page


def test_a_single_model_with_metrics_alone_makes_a_report(tmp_path: Path) -> None:
    model = (
        made()
        .models[0]
        .model_copy(
            update={"drawings": (), "robustness": (), "cost": None, "calibration": None, "figures": {}, "notes": ()}
        )
    )
    paths = write_report(tmp_path, make_bare(models=(model,), data=made().data))
    assert [path.name for path in paths] == ["report.html", "results.json"]
    assert "Models" in paths[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [NASTY, "a" * 3000, "\x00\x07\x1b[31m", "']]>--><!--<svg/onload=x>", "@/=1+1"])
def test_names_never_become_markup_of_the_page(name: str) -> None:
    page = render(rename_all(small(), name), make_pictures(2))
    plain, found = read(made_page()), read(page)
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in plain.tags} | {"wbr"}
    assert {key for _, a in found.tags for key in a} <= {key for _, a in plain.tags for key in a} | {"title"}
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\x00-\x08\x1b]", page)
    assert printable(name) in [a.get("title") for a in found.list_of("span")] or printable(name) in found.text


def test_names_never_become_part_of_a_file_name_or_break_a_chart(tmp_path: Path) -> None:
    written = write_report(tmp_path, rename_all(small(), NASTY), make_pictures(2))
    assert len(written) > 15
    assert all(re.fullmatch(r"[a-z0-9.-]{1,90}", path.name) for path in written)
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["title"] == NASTY


def test_long_names_are_shortened_and_stay_distinct() -> None:
    names = [f"student with a very long name and then some, seed {seed}" for seed in "1234"] + ["x" * 40 + "y" * 40]
    short = shorten_names([*names, names[-1][:-1] + "y", "x" * 41 + "y" * 39], 20)
    assert len(set(short.values())) == len(short)
    assert all(len(name) <= 20 for name in short.values())
    assert shorten("abcdefghij", 10) == "abcdefghij"
    assert shorten("abcdefghijk", 6) == "abc…jk"


def test_file_names_are_plain_and_differ() -> None:
    assert make_slug("Ünïcode / ..\\Name") == "unicode-name"
    assert make_slug("漢字") == "unnamed"
    assert len(make_slug("x" * 300)) == 40
    assert make_unique(["a", "a", "b", "a"]) == ["a", "a-2", "b", "a-3"]
    assert make_unique(["a-2", "a", "a"]) == ["a-2", "a", "a-3"]


def test_a_missing_value_is_a_dash_with_its_reason_beneath() -> None:
    figures = {
        "frame_auc": MetricValue(value=None, note="no value: no fake at all"),
        "frame_ap": MetricValue(value=0.5),
    }
    page = render(make_bare(models=(made().models[0].model_copy(update={"figures": figures, "drawings": ()}),)), [])
    assert re.search(r'<td><span class="name" title="no value: no fake at all">–</span><sup>1</sup></td>', page)
    assert '<li value="1">no value: no fake at all</li>' in page


def test_numbers_are_written_as_readers_have_them() -> None:
    assert format_value(0.89349, "share") == ".893"
    assert format_value(1.0, "share") == "1.000"
    assert format_value(0.1864, "percent") == "18.6\u00a0%"
    assert format_value(0.0004, "percent") == "0.04\u00a0%"
    assert format_value(None, "share") == "–"
    assert format_interval(0.871, 0.914, "share") == "[.871, .914]"
    assert format_interval(0.17, 0.203, "percent") == "[17.0, 20.3]\u00a0%"
    assert format_interval(None, 0.2, "share") == ""
    assert [format_difference(v) for v in (0.0214, -0.0041, 0.0001, None)] == ["+.021", "−.004", ".000", "–"]
    assert [format_probability(v) for v in (1.0, 0.0, 0.5)] == ["> 99.9\u00a0%", "< 0.1\u00a0%", "50.0\u00a0%"]
    assert [format_p_value(v) for v in (0.0004, 0.0312, None)] == ["< .001", ".031", "–"]
    assert [format_bytes(v) for v in (999, 13_700_000, None)] == ["999 B", "13.7 MB", "–"]
    assert [format_macs(v) for v in (46_100, 98_700_000, 5_350_000_000)] == ["46.1 k", "98.7 M", "5.35 G"]
    assert format_moment("2026-08-08T12:30:00Z") == "8 August 2026, 12:30 UTC"
    assert format_moment("yesterday") == "yesterday"


def test_names_of_metrics_are_parsed_as_they_were_built() -> None:
    def parse(name: str) -> tuple[str, str, str]:
        parts = split_name(name)
        return parts.level, parts.base, parts.suffix

    assert parse("frame_auc") == ("frame", "auc", "")
    assert parse("video_tpr_at_fpr_0.1pct_top10@a b/Deep@fakes") == (
        "video_top10",
        "tpr_at_fpr_0.1pct",
        "@a b/Deep@fakes",
    )
    assert parse("video_accuracy_at_fpr_1pct_mean") == ("video_mean", "accuracy_at_fpr_1pct", "")
    assert parse("video_auc_top5frames_margin") == ("video_top5frames_margin", "auc", "")
    assert parse("video_count_without_decision@x") == ("video", "count_without_decision", "@x")
    assert parse("people_count") == ("", "people_count", "")
    assert describe_metric("video_auc_mean@celebdf") == "AUC of videos (mean of their frames), celebdf"


def test_every_computed_metric_has_a_title_and_a_glossary_entry() -> None:
    ids = {attributes.get("id") for _, attributes in read(made_page()).tags}
    for name in made().models[0].figures:
        word = find_label(split_name(name).base)
        assert word.kind != "other", name
        assert f"word-{word.entry}" in ids, name


def test_every_metric_of_a_set_is_in_a_table_with_its_interval_and_no_pool_of_sets_is() -> None:
    page = "".join(made_page().split("<wbr>"))
    figures = made().models[0].figures
    for name, figure in figures.items():
        if (
            split_name(name).level in ("frame", "video_mean")
            and split_name(name).suffix.count("/") == 0
            and "@" in name
        ):
            unit = find_label(split_name(name).base).unit
            assert f">{format_value(figure.value, unit)}</span>" in page, name
            assert bind_units(format_interval(figure.low, figure.high, unit)) in page, name
    assert "all data" not in page.lower()


def test_the_protocol_and_the_fingerprints_are_complete() -> None:
    text = " ".join(read(made_page()).text)
    for words in PROTOCOL.values():
        assert bind_units(words) in text
    for data in made().data:
        assert data.fingerprint in text


def test_no_python_repr_is_shown_to_a_reader() -> None:
    text = " ".join(read(made_page()).text)
    assert not re.search(
        r"\bNone\b|\bTrue\b|\bFalse\b|MetricValue|value=|\(['\"]|mappingproxy|OrderedDict|<class", text
    )


def test_the_config_can_be_copied_from_the_page() -> None:
    command, config = re.findall(r"<pre[^>]*>(.*?)</pre>", made_page(), re.DOTALL)
    assert html.unescape(command) == f"<code>python {made().command}</code>"
    assert json.loads(html.unescape(config)) == made().config


WRITE = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from example_results import make_pictures
from sharpstudent.tasks.deepfake.report.page import write_report
from sharpstudent.tasks.deepfake.report.results import Results
results = Results.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
write_report(Path(sys.argv[2]), results, make_pictures(4))
"""


def test_the_same_results_give_the_same_bytes_whatever_the_settings_of_the_user(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    paths = write_report(here, small(), make_pictures(4))
    (tmp_path / "matplotlibrc").write_text("font.size: 30\naxes.facecolor: black\nsvg.fonttype: path\n")
    command = [
        sys.executable,
        "-c",
        WRITE,
        str(here / "results.json"),
        str(there),
        str(ROOT),
        str(Path(__file__).resolve().parent),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "77", "MATPLOTLIBRC": str(tmp_path)}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=300)
    for path in paths:
        assert (there / path.relative_to(here)).read_bytes() == path.read_bytes(), path.name


def test_all_files_are_written_and_named(tmp_path: Path) -> None:
    results = small()
    paths = write_report(tmp_path, results, make_pictures(8))
    assert sorted(paths) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    names = {chart.name for chart in build_charts(results).list_all()}
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == names
    assert {path.stem for path in (tmp_path / "figures").glob("*.csv")} == names
    assert Results.model_validate_json((tmp_path / "results.json").read_text(encoding="utf-8")) == results


def test_a_page_of_usual_size_is_small() -> None:
    assert len(made_page().encode()) < 1_500_000


@pytest.mark.slow  # many charts with many lines are drawn
def test_a_page_of_many_models_sets_and_mistakes_stays_below_six_megabytes() -> None:
    results = make_results(models=8, sources=8, clips=40, frames_each=2, rounds=5)
    names = [f"{model.name}_{seed}" for seed in range(3) for model in results.models]
    models = tuple(
        model.model_copy(update={"name": name}) for name, model in zip(names, results.models * 3, strict=True)
    )
    mistakes = make_mistakes(names, each=12, pictures=24)
    results = results.model_copy(update={"models": models, "mistakes": mistakes, "training": make_training(100)})
    page = render_page(results, build_charts(results), make_pictures(24))
    assert len(page.encode()) < 6_000_000
    assert "The page has no room for these; they are files:" in page


def test_nothing_is_written_if_the_report_cannot_be_rendered(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has picture 0, of 0"):
        write_report(tmp_path / "out", made(), [])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        write_report(tmp_path / "file", make_bare())


def test_thumbnails_are_small_and_heat_lies_where_it_was_hot() -> None:
    face = np.full((300, 240, 3), 90, np.uint8)
    heat = np.zeros((300, 240), np.float32)
    heat[:75, :60] = 1.0
    mistake = make_mistakes(["m"])[0]
    card = build_mistakes([mistake], [ReportPicture(face, heat)]).by_model[0][1][0]
    assert (card.width, card.height) == (SIDE * 240 // 300, SIDE)
    plain, over = (decode(uri).astype(int) for uri in (card.face, card.heat))
    assert plain.shape == over.shape == (160, 128, 3)
    changed = np.abs(over - plain).max(axis=2)
    assert changed[5:30, 5:25].min() > 40
    assert changed[60:, 50:].max() < 12


def decode(uri: str) -> np.ndarray:
    import base64

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_mistakes_beyond_the_limit_are_rows_without_a_picture() -> None:
    mistakes = make_mistakes(["a", "b", "c"], each=20, pictures=60)
    found = build_mistakes(mistakes, make_pictures(60, size=20))
    assert [len(cards) for _, cards in found.by_model] == [MOST_CARDS // 3] * 3
    assert len(found.rest) == 60 - MOST_CARDS
    kept = [card.mistake for _, cards in found.by_model for card in cards]
    assert all(kept[at] == mistakes[place] for at, place in ((0, 0), (8, 20), (16, 40)))  # the worst of each model


@pytest.mark.parametrize(
    "picture",
    [
        ReportPicture(np.zeros((4, 4), np.uint8)),
        ReportPicture(np.zeros((4, 4, 3), np.float32)),  # type: ignore[arg-type]
        ReportPicture(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 1), np.float32)),
    ],
)
def test_a_picture_of_another_shape_or_dtype_is_refused(picture: ReportPicture) -> None:
    with pytest.raises(ValueError, match="must be"):
        build_mistakes(make_mistakes(["m"], each=1), [picture])


def test_results_are_read_without_drawing_libraries() -> None:
    program = (
        "import sys; import sharpstudent.tasks.deepfake.report.page; "
        "print([name for name in ('matplotlib', 'jinja2', 'PIL', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True, timeout=400
    )
    assert done.stdout.strip() == "[]"
