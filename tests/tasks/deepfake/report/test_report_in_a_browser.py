"""The report opened in a real browser, on a phone and on a desk, light and dark. Skips where there is no Chromium."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from browser import NAMES, Browser, find_browser, start_browser
from example_results import make_pictures, make_results
from PIL import Image
from sharpstudent.report.chart import DARK_PAPER, LIGHT_PAPER
from sharpstudent.tasks.deepfake.report.page import write_report

# The file of axe-core in a package that needs nothing else of it: importing the package would load a browser's driver.
_PACKAGE = importlib.util.find_spec("axe_playwright_python")
AXE = None if _PACKAGE is None or _PACKAGE.origin is None else Path(_PACKAGE.origin).with_name("axe.min.js")
WIDTHS, SCHEMES = (390, 1400), ("light", "dark")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
FAULTS = f"""
axe.run(document, {{resultTypes: ['violations'], runOnly: {{type: 'tag', values: {RULES}}}}})
.then(found => found.violations.map(
  one => one.id + ': ' + one.nodes.slice(0, 3).map(node => node.target + ' ' + node.failureSummary).join('; ')))
"""
UNREACHED = """
(() => {
  const focusable = 'a[href],summary,input,[tabindex="0"]';
  const scrolls = e => e.scrollWidth > e.clientWidth + 1 && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
  return [...document.querySelectorAll('body *')].filter(e => !e.closest('svg') && scrolls(e)
    && !(e.matches(focusable) && (e.getAttribute('aria-label') || e.getAttribute('aria-labelledby'))))
    .map(e => e.tagName + '.' + e.className);
})()
"""

pytestmark = pytest.mark.skipif(find_browser() is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")

OVERFLOWING = """
[...document.querySelectorAll('body *')].filter(e => {
  if (e.closest('.scroll') || e.closest('.unseen') || e.closest('svg') && e.tagName != 'svg') return false;
  const box = e.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map(e => e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 40))
"""
FAINT_TEXT = """
(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => { v /= 255;
    return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const found = new Set();
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) || e.closest('svg')) continue;
    const ink = light(getComputedStyle(e).color);
    const contrast = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
    if (contrast < 4.5) found.add(e.tagName + '.' + e.className + ' ' + contrast.toFixed(2));
  }
  return [...found];
})()
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    results = make_results(models=3, clips=20, frames_each=3, rounds=5)
    names = [results.models[0].name, results.models[1].name, "student_" + "very_long_name" * 12]
    models = [
        model.model_copy(update={"name": name, "drawings": model.drawings[:2], "robustness": model.robustness[:4]})
        for name, model in zip(names, results.models, strict=True)
    ]
    results = results.model_copy(update={"models": tuple(models), "title": "Title " + "x" * 200})
    return write_report(folder, results, make_pictures(12))[0]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser]:
    program = find_browser()
    assert program is not None
    with start_browser(program, tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_fits_requests_nothing_and_logs_no_errors(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    page = browser.open_page()
    page.open(report.as_uri(), width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate(FAINT_TEXT) == []
    assert page.list_requests() == [report.as_uri()]
    assert page.list_complaints() == []


@pytest.mark.parametrize("width", WIDTHS)
def test_light_and_dark_scheme_are_rendered_differently_and_not_blank(
    browser: Browser, report: Path, tmp_path: Path, width: int
) -> None:
    pictures: dict[str, np.ndarray] = {}
    for scheme in SCHEMES:
        page = browser.open_page()
        page.open(report.as_uri(), width=width, scheme=scheme)
        height = min(5000, page.evaluate("document.documentElement.scrollHeight"))
        page.take_picture(tmp_path / f"{scheme}.png", clip=(0, 0, width, height))
        pictures[scheme] = np.asarray(Image.open(tmp_path / f"{scheme}.png").convert("RGB")).astype(np.int16)
    for scheme, paper in (("light", LIGHT_PAPER), ("dark", DARK_PAPER)):
        picture = pictures[scheme]
        background = np.array([int(paper[i : i + 2], 16) for i in (1, 3, 5)])
        assert picture.shape[1] == width
        assert (picture[2, 2] == background).all()
        inked = (np.abs(picture - background).max(axis=2) > 40).mean()
        assert 0.02 < inked < 0.5
    assert pictures["light"].shape == pictures["dark"].shape
    assert np.abs(pictures["light"] - pictures["dark"]).mean() > 100


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed (make browser)")
@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "light"),
        (1400, "dark"),
        pytest.param(390, "dark", marks=pytest.mark.slow),
        pytest.param(1400, "light", marks=pytest.mark.slow),
    ],
)
def test_the_page_has_no_fault_of_wcag_a_or_aa(browser: Browser, report: Path, width: int, scheme: str) -> None:
    assert AXE is not None
    page = browser.open_page()
    page.open(report.as_uri(), width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    page.evaluate("document.querySelectorAll('svg > *, tbody tr:nth-child(n+4)').forEach(e => e.remove())")  # the same
    page.evaluate(f"{AXE.read_text(encoding='utf-8')}; 0")
    assert page.evaluate(FAULTS) == []


def test_the_keyboard_reaches_whatever_scrolls_and_whatever_is_folded(browser: Browser, report: Path) -> None:
    page = browser.open_page()
    page.open(report.as_uri(), width=390, scheme="light")
    assert page.evaluate("[...document.querySelectorAll('details')].every(e => e.firstElementChild.matches('summary'))")
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert page.evaluate(UNREACHED) == []


def test_paper_has_what_is_open_and_the_rest_only_where_it_is_asked_for(browser: Browser, report: Path) -> None:
    page = browser.open_page()
    page.open(report.as_uri(), width=1400, scheme="light")
    few = page.count_printed_pages()
    assert few <= 12
    page.evaluate("document.getElementById('whole').click()")
    assert page.count_printed_pages() > few


def test_text_in_charts_can_be_read_on_a_phone(browser: Browser, report: Path) -> None:
    page = browser.open_page()
    page.open(report.as_uri(), width=390, scheme="light")
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('.chart > svg')].filter(s => s.getBoundingClientRect().width)"
        ".map(s => 9 * s.getBoundingClientRect().width / s.viewBox.baseVal.width))"
    )
    assert smallest >= 9.5


def test_wide_tables_scroll_within_their_own_box(browser: Browser, report: Path) -> None:
    page = browser.open_page()
    page.open(report.as_uri(), width=390, scheme="light")
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    wide = page.evaluate("[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length")
    assert wide > 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_no_script_is_needed_and_none_can_run(browser: Browser, report: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    text = report.read_text(encoding="utf-8").replace("<main>", "<main><script>window.ran = 1</script>", 1)
    bad.write_text(text, encoding="utf-8")
    page = browser.open_page()
    page.open(bad.as_uri(), width=390, scheme="light")
    assert page.evaluate("window.ran === undefined")
    assert any("Content Security Policy" in said for said in page.list_complaints())  # so complaints are heard
