"""What names of files say: of clips (valid relative paths, one a clip), of people, and which frame of its video a
picture is. Of several people the first is the one whose face is seen.

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


REENACTMENTS = ("Face2Face", "NeuralTextures")
ACTORS_FAKE = "DeepFakeDetection"

_PAIR = re.compile(r"(\d{3})_(\d{3})", re.ASCII)
_NUMBER = re.compile(r"\d{3}", re.ASCII)
_ACTORS = re.compile(r"(\d{2})(?:_(\d{2}))?__.+", re.ASCII)
_CELEBRITIES = re.compile(r"(id\d+)(?:_(id\d+))?_\d+", re.ASCII)


def tell_ffpp_people(stem: str, manipulation: str) -> tuple[str, ...] | None:
    """Video numbers ("071") as people; None for a name of another form. manipulation: "" for a real video."""
    if not manipulation:
        return (stem,) if _NUMBER.fullmatch(stem) else None
    pair = _PAIR.fullmatch(stem)
    if pair is None:
        return None
    target, source = pair.groups()
    return (target, source) if manipulation in REENACTMENTS else (source, target)


def tell_actors(stem: str) -> tuple[str, ...] | None:
    """Actors ("actor_01") of a real or a fake video of DeepFakeDetection; None for a name of another form."""
    people = tell_people(stem, _ACTORS)
    return people and tuple(f"actor_{person}" for person in people)


def tell_celebrities(stem: str) -> tuple[str, ...] | None:
    """Celebrities ("id0") of a real or a fake video of Celeb-DF; None for a name of another form."""
    return tell_people(stem, _CELEBRITIES)


def tell_people(stem: str, form: re.Pattern[str]) -> tuple[str, ...] | None:
    """The person of a real video, or the source and the target of a fake, which is named target first."""
    found = form.fullmatch(stem)
    return found and tuple(person for person in (found[2], found[1]) if person)


LONGEST_NUMBER = 9  # digits


def number_frames(stems: Sequence[str]) -> list[int]:
    """The numbers that the file names are; where one is no number, or two are the same, their places in the list.

    No two are alike: crops are named by them.
    """
    if all(stem.isascii() and stem.isdecimal() and len(stem) <= LONGEST_NUMBER for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(len(stems)))
