"""The sentences of a report's page, and the places where a line could part a number from its unit."""

from __future__ import annotations

import re
from html.parser import HTMLParser

PROSE = ("p", "li", "dd", "figcaption", "h1", "h2", "h3", "h4")
_UNIT = r"(?:%|ms|s|px|MB|kB|GB|B|k|M|G)"


class _Prose(HTMLParser):
    """Collects the text of each innermost element of prose; commands, configs and names of files are no prose."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in PROSE:
            self.texts.append("")
        if tag not in ("meta", "br", "img", "wbr", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if any(tag in PROSE for tag in self.open) and not {"pre", "code", "svg", "style"} & {*self.open}:
            self.texts[-1] += data


def list_sentences(page: str) -> list[str]:
    """List every sentence of the page's paragraphs, lists, captions, notes and explanations."""
    prose = _Prose()
    prose.feed(page)
    return [one for text in prose.texts for one in re.split(r"(?<=[.!?])\s+(?=[A-Z“0-9(])", text.strip()) if one]


def count_words(sentence: str) -> int:
    """Count the words: a number is one with its unit, and signs alone are none."""
    return sum(bool(re.search(r"\w", word)) for word in re.split(r"[ \t\n]+", sentence))


def list_parted(page: str) -> list[str]:
    """List the places of the page's text where a number could part from its unit, or an interval from its end."""
    text = re.sub(r"<(pre|style|script|svg)\b.*?</\1>", "", page, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", "\n", text)
    found = re.findall(rf".*\d[ \n]{_UNIT}(?![\w]).*", text)
    return found + re.findall(r".*\[[+−-]?\.?\d[\d.]*, .*\].*", text)
