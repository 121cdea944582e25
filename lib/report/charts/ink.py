"""The colours, dashes and markers of charts: told apart by readers who see few colours, and on paper.

Eight colours after Okabe & Ito (2008), darkened for white and lightened for dark paper so that each has a contrast of
at least 3 to 1 there (WCAG 2.2, 1.4.11). Dashes and markers differ too: no chart is told in colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LIGHT_SERIES = ("#0067a8", "#c24a00", "#00785a", "#a8357f", "#8a6400", "#4b3fae", "#2b84a6", "#50565e")
DARK_SERIES = ("#5fb4f2", "#ff8f52", "#35c99a", "#ee8fca", "#e3bd4b", "#b3a6ff", "#9adcf5", "#bcc3cb")
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)),
    (0, (9, 2)), (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)), (0, (2.6, 1.2)), (0, (1, 2.6)),
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LIGHT_PAPER, DARK_PAPER = "#ffffff", "#14171b"


@dataclass(frozen=True)
class Ink:
    """What a chart is drawn with: colours as #rrggbb. real, fake: of the two classes."""

    text: str
    grid: str
    series: tuple[str, ...]
    real: str
    fake: str

    def line(self, number: int) -> dict[str, Any]:
        """Keywords for matplotlib's lines of series `number`, from 0; from the ninth on, other dashes."""
        return {
            "color": self.series[number % 8],
            "linestyle": DASHES[(number + number // 8) % 8],
            "linewidth": 1.7,
            "dash_capstyle": "butt",
        }

    def marker(self, number: int) -> dict[str, Any]:
        """Keywords for matplotlib's markers of series `number`."""
        return {"marker": MARKERS[(number + number // 8) % 8], "markersize": 4.2, "markeredgewidth": 0}


PAPER_INK = Ink(text="#1c2127", grid="#dfe3e8", series=LIGHT_SERIES, real=LIGHT_SERIES[0], fake=LIGHT_SERIES[1])

# Colours that stand for what the page says: they are exchanged for CSS once the SVG is drawn.
PAGE_INK = Ink(
    text="#00fe80",
    grid="#00fe81",
    series=tuple(f"#00fe{number:02x}" for number in range(8)),
    real="#00fe82",
    fake="#00fe83",
)
PAGE_COLOURS = {
    PAGE_INK.text: "currentColor",
    PAGE_INK.grid: "var(--grid)",
    PAGE_INK.real: "var(--real)",
    PAGE_INK.fake: "var(--fake)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(PAGE_INK.series)},
}

# The same dashes and markers for the page's legend: stroke-dasharray, and a path around (15, 6).
KEY_DASHES = tuple("" if dash == "-" else " ".join(f"{1.7 * part:.3g}" for part in dash[1]) for dash in DASHES)
KEY_MARKERS = (
    "M18 6A3 3 0 1 1 12 6A3 3 0 1 1 18 6Z",
    "M12.2 3.2H17.8V8.8H12.2Z",
    "M15 2.4L18.4 8.8H11.6Z",
    "M15 2.2L18.8 6L15 9.8L11.2 6Z",
    "M15 9.6L18.4 3.2H11.6Z",
    "M13.8 2.6H16.2V4.8H18.4V7.2H16.2V9.4H13.8V7.2H11.6V4.8H13.8Z",
    "M13 2.6L15 4.6L17 2.6L18.4 4L16.4 6L18.4 8L17 9.4L15 7.4L13 9.4L11.6 8L13.6 6L11.6 4Z",
    "M15 2L16 4.7L18.9 4.8L16.6 6.6L17.4 9.4L15 7.8L12.6 9.4L13.4 6.6L11.1 4.8L14 4.7Z",
)
