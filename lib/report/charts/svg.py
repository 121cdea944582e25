"""matplotlib's SVG made fit for a page of many: ids of its own, the page's colours and font, nothing from outside."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from lib.report.charts.ink import PAGE_COLOURS

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT = re.compile(r"font:\s*(?:(?:bold|italic|oblique|\d{3})\s+)*([\d.]+)px[^;]*")
_FAMILY = re.compile(r"font-family:[^;]*;?\s*")
_COLOUR = re.compile("|".join(PAGE_COLOURS))
_DROPPED = ("style", "metadata", "clipPath")  # nothing is drawn outside its axes
_ROUNDED = ("d", "x", "y", "transform", "points", "width", "height")


def make_inline_svg(drawn: str, *, name: str, label: str) -> str:
    """An `<svg>` element for HTML. drawn: what matplotlib wrote; name: put before its ids, so that no two charts of a
    page share one; label: what it is called for those who cannot see it.

    Coordinates are rounded to a hundredth of a point. matplotlib's own style sheet goes, as it would style the page.
    """
    root = ElementTree.fromstring(drawn)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.removeprefix(_SVG) in _DROPPED:
                parent.remove(child)
    used = {value[1:] for node in root.iter() for key, value in node.attrib.items() if key == f"{_XLINK}href"}
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        node.attrib = dict(sorted(_clean(node.attrib, name, used).items()))
        node.tail = None
        node.text = node.text if node.tag in ("text", "tspan") else None
    box = root.attrib.get("viewBox", "0 0 1 1")
    root.attrib = {"viewBox": box, "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _clean(attributes: dict[str, str], name: str, used: set[str]) -> dict[str, str]:
    cleaned: dict[str, str] = {}
    for key, value in attributes.items():
        if key == "id":
            if value in used:
                cleaned[key] = f"{name}-{value}"
        elif key == f"{_XLINK}href":
            cleaned["href"] = f"#{name}-{value[1:]}"
        elif key == "style":
            plain = _FAMILY.sub("", _FONT.sub(r"font-size:\1px", value))
            cleaned[key] = _COLOUR.sub(lambda found: PAGE_COLOURS[found[0]], plain)
        elif not key.startswith("{") and key != "clip-path":
            cleaned[key] = _NUMBER.sub(_round, value) if key in _ROUNDED else value
    return cleaned


def _round(found: re.Match[str]) -> str:
    return f"{round(float(found[0]), 2) + 0.0:g}"  # + 0.0: no -0
