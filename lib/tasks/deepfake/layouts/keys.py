"""Names of clips: valid relative paths, one a clip."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

LONGEST_PART = 200  # file systems take 255 bytes; others may add an ending [bytes]
LONGEST_KEY = 1000  # [bytes]


def build_key(parts: Iterable[str]) -> str:
    """The parts joined by '/', each fit to be a folder's name. What had to be altered gets a digest of the original,
    so that two names never become one.
    """
    key = "/".join(_fit(part) for part in parts)
    if len(key.encode()) > LONGEST_KEY:
        return f"long/{_digest(key, 32)}"
    return key


def build_keys(root: Path, paths: Sequence[Path]) -> list[str]:
    """Keys of files below a root: their relative paths without suffix, but with it where two would be the same."""
    inside = [path.relative_to(root).parts for path in paths]
    stems = [(*parts[:-1], path.stem) for parts, path in zip(inside, paths, strict=True)]
    times = Counter(fold("/".join(stem)) for stem in stems)
    return [
        build_key(parts if times[fold("/".join(stem))] > 1 else stem) for parts, stem in zip(inside, stems, strict=True)
    ]


def fold(key: str) -> str:
    """What two keys must not share: some file systems ignore case and the form of accents."""
    return unicodedata.normalize("NFC", key).casefold()


def _fit(part: str) -> str:
    plain = "".join("_" if char in "\\/" or unicodedata.category(char) in ("Cc", "Cs") else char for char in part)
    plain = plain.strip(" .")  # hidden names, and ends that some file systems drop
    if plain == part and plain and len(plain.encode()) <= LONGEST_PART:
        return part
    short = plain.encode()[: LONGEST_PART - 20].decode("utf-8", "ignore")
    return f"{short}~{_digest(part, 12)}"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
