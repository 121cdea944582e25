"""Text of others made fit to be shown: nothing in it is hidden, turns the line round, or is too long for its place."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, format (bidi too), surrogates, no characters at all
_JOINERS = "\u200c\u200d"  # letters of some scripts, and emoji, are made with these


def show(text: str) -> str:
    """`text` with each character that cannot be seen, or that changes the order of others, as its number: ⟨U+202E⟩.

    New lines and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"⟨U+{ord(c):04X}⟩" if _is_hidden(c) else c for c in text)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in "\n\t" and character not in _JOINERS


def shorten(text: str, length: int) -> str:
    """At most `length` characters: begin and end with an ellipsis between."""
    if len(text) <= length:
        return text
    end = (length - 1) * 2 // 5
    return f"{text[: length - 1 - end]}…{text[len(text) - end :]}"


def shorten_names(names: Sequence[str], length: int) -> dict[str, str]:
    """Each name and its short form, no two alike."""
    short: dict[str, str] = {}
    for name in dict.fromkeys(names):
        found, number = shorten(show(name), length), 2
        while found in short.values():
            found, number = f"{shorten(show(name), length - 4)} ({number})", number + 1
        short[name] = found
    return short


def make_slug(text: str) -> str:
    """A part of a file name that every system takes: a-z, 0-9, and single hyphens; at most 40 characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "unnamed"


def make_unique(names: Iterable[str]) -> list[str]:
    """The names in order; one that was there before gets a number."""
    taken: set[str] = set()
    unique: list[str] = []
    for name in names:
        found, number = name, 2
        while found in taken:
            found, number = f"{name}-{number}", number + 1
        taken.add(found)
        unique.append(found)
    return unique
