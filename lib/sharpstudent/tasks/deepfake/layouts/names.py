"""Derives clip keys, people and frame numbers from file names.

Keys are valid relative paths, one a clip. Of several people the first is the one whose face is seen.

FaceForensics++ (its dataset/README.md): TARGET_SOURCE.mp4, and TARGET_SOURCE__SCENE__ID.mp4 for DeepFakeDetection,
ACTOR__SCENE.mp4 for its real videos. Swapping puts the source's face on the target; Face2Face and NeuralTextures only
move the target's own face (Rössler et al. 2019, appendix). Celeb-DF: idTARGET_idSOURCE_NUMBER.mp4, the face of the
source on the video idTARGET_NUMBER (its authors' page names no order; users' documentation does).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

LONGEST_PART = 200  # file systems take 255 bytes; others may add an ending [bytes]
LONGEST_KEY = 1000  # [bytes]


def build_key(parts: Iterable[str]) -> str:
    """Join the parts by '/', each made fit to be a folder's name.

    A part that had to be altered gets a digest of the original, so that two names never become one.
    """
    key = "/".join(_fit(part) for part in parts)
    if len(key.encode()) > LONGEST_KEY:
        return f"long/{_digest(key, 32)}"
    return key


def build_keys(root: Path, paths: Sequence[Path]) -> list[str]:
    """Build the keys of files: their relative paths without suffix, but with it where two would be the same.

    Args:
        root: The folder that all of them lie below.
        paths: The files.

    Returns:
        A key a file.
    """
    inside = [path.relative_to(root).parts for path in paths]
    stems = [(*parts[:-1], path.stem) for parts, path in zip(inside, paths, strict=True)]
    times = Counter(fold("/".join(stem)) for stem in stems)
    return [
        build_key(parts if times[fold("/".join(stem))] > 1 else stem) for parts, stem in zip(inside, stems, strict=True)
    ]


def fold(key: str) -> str:
    """Normalise a key for comparison with others: some file systems ignore case and the encoding of accents."""
    return unicodedata.normalize("NFC", key).casefold()


def _fit(part: str) -> str:
    plain = "".join("_" if char in "\\/" or unicodedata.category(char) in ("Cc", "Cs") else char for char in part)
    plain = plain.strip(" .")  # no hidden names, and no endings that some file systems drop
    if plain == part and plain and len(plain.encode()) <= LONGEST_PART:
        return part
    short = plain.encode()[: LONGEST_PART - 20].decode("utf-8", "ignore")
    return f"{short}~{_digest(part, 12)}"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


REENACTMENTS = ("Face2Face", "NeuralTextures")
ACTORS_FAKE = "DeepFakeDetection"

_PAIR = re.compile(r"(\d{3})_(\d{3})", re.ASCII)
_NUMBER = re.compile(r"\d{3}", re.ASCII)
_ACTORS = re.compile(r"(\d{2})(?:_(\d{2}))?__.+", re.ASCII)
_CELEBRITIES = re.compile(r"(id\d+)(?:_(id\d+))?_\d+", re.ASCII)


def parse_ffpp_people(stem: str, manipulation: str) -> tuple[str, ...] | None:
    """Return the video numbers ("071") in a name of FaceForensics++ as people.

    Args:
        stem: The file's name without suffix.
        manipulation: The method that made it, "" for a real video.

    Returns:
        The people, first the one whose face is seen; None for a name of another form.
    """
    if not manipulation:
        return (stem,) if _NUMBER.fullmatch(stem) else None
    pair = _PAIR.fullmatch(stem)
    if pair is None:
        return None
    target, source = pair.groups()
    return (target, source) if manipulation in REENACTMENTS else (source, target)


def parse_actors(stem: str) -> tuple[str, ...] | None:
    """Return the actors ("actor_01") of a video of DeepFakeDetection; None for a name of another form."""
    people = parse_people(stem, _ACTORS)
    return people and tuple(f"actor_{person}" for person in people)


def parse_celebrities(stem: str) -> tuple[str, ...] | None:
    """Return the celebrities ("id0") of a video of Celeb-DF; None for a name of another form."""
    return parse_people(stem, _CELEBRITIES)


def parse_people(stem: str, form: re.Pattern[str]) -> tuple[str, ...] | None:
    """Return the person of a real video, or source and target of a fake.

    Args:
        stem: The file's name without suffix.
        form: Matches the target (or the only person) as group 1 and the source as group 2.

    Returns:
        The people, first the one whose face is seen; None for a name of another form.
    """
    found = form.fullmatch(stem)
    return found and tuple(person for person in (found[2], found[1]) if person)


LONGEST_NUMBER = 9  # digits


def number_frames(stems: Sequence[str]) -> list[int]:
    """Read the frame numbers from file names; no two are equal, because crops are named by them.

    Where a name is not a number, or two numbers are equal, the frames are numbered by their order in the list.
    """
    if all(stem.isascii() and stem.isdecimal() and len(stem) <= LONGEST_NUMBER for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(len(stems)))
