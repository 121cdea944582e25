"""Derives clip keys, people, frame numbers, classes and splits from names of files and folders.

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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

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


Split = Literal["train", "val", "test"]
CLASSES = ("real", "fake")  # by their numbers
CLASS_WORDS: dict[int, tuple[str, ...]] = {
    0: (
        *("real", "reals", "original", "originals", "genuine", "authentic", "pristine", "bonafide", "live", "notfake"),
        *("nonfake", "untampered", "unaltered", "unmanipulated", "echt", "vrai", "vrais", "réel", "réels", "auténtico"),
        *("auténticos", "reales", "reais", "autêntico", "reale", "reali", "autentici", "prawdziwe", "gerçek", "asli"),
        *("настоящие", "реальные", "оригинал", "真", "真实", "真實", "真脸", "本物", "진짜", "असली", "حقيقي"),
    ),
    1: (
        *("fake", "fakes", "deepfake", "deepfakes", "manipulated", "manipulation", "manipulations", "swapped", "swap"),
        *("swaps", "faceswap", "face2face", "neuraltextures", "faceshifter", "deepfakedetection", "synthesis"),
        *("synthesized", "synthesised", "synthetic", "altered", "tampered", "forged", "forgery", "forgeries", "spoof"),
        *(
            "spoofed",
            "attack",
            "morph",
            "morphed",
            "generated",
            "ai",
            "gan",
            "notreal",
            "nonreal",
            "methoda",
            "methodb",
        ),
        *("gefälscht", "fälschung", "fälschungen", "faux", "falso", "falsos", "falsi", "falsificado", "fałszywe"),
        *("sahte", "palsu", "поддельные", "подделка", "фейк", "фейки", "假", "伪造", "偽造", "假脸", "换脸", "換臉"),
        *("偽物", "가짜", "딥페이크", "नकली", "مزيف"),
    ),
}
SPLIT_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "devel"),
    "test": ("test", "testing", "tst"),
}
UNSURE_SPLITS = ("eval", "evaluation", "holdout")
# Pairs of names that are two classes, but nothing says which of them is real.
UNSTATED = (
    *(("0", "1"), ("no", "yes"), ("n", "y"), ("false", "true"), ("f", "t"), ("negative", "positive"), ("neg", "pos")),
    *(("class 0", "class 1"), ("label 0", "label 1"), ("source", "target"), ("bad", "good"), ("after", "before")),
    ("correct", "incorrect"),
)
# Words that say nothing of class, split or person.
_NEUTRAL = (
    "image images img imgs picture pictures pic pics photo photos foto fotos portrait portraits video videos vid vids "
    "clip clips movie movies film films frame frames face faces crop crops cropped aligned data dataset datasets set "
    "sets part parts chunk batch folder raw c23 c40 hq lq jpg jpeg png mp4 all class label the of and vs or youtube "
    "celeb sequences files v 图片 图像 视频 人脸 数据 画像 動画 사진 영상"
)
NEUTRAL = frozenset(_NEUTRAL.split())
NUMBERED = frozenset(("images", "part", "parts", "chunk", "batch", "folder", "set"))  # neutral with a number as well
CAMERA = frozenset(("dsc", "dscn", "dscf", "pxl", "mvi", "p", "wa", "screenshot", "id", "no", "nr"))
WEAK = frozenset(("ai", "gan", "live", "swap", "attack", "real", "真", "假", "faux", "morph"))  # in people's names, too
# Names of published sets: without their own lists nothing says what is real.
_DATA_SETS = (
    "dfdc dfdcp celebdf celebdfv1 celebdfv2 faceforensics ffpp dfd uadfv wilddeepfake deeperforensics forgerynet kodf "
    "df40 fakeavceleb deepfaketimit ffiw ffiw10k openforensics"
)
DATA_SETS = frozenset(_DATA_SETS.split())


@dataclass(frozen=True)
class NameReading:
    """What the words of one name say.

    Attributes:
        labels: The classes that it means, all of its words being known.
        splits: The splits that it means, all of its words being known.
        person: Who or what else it names, such as a person, a clip or a numbered class; "" for nothing else.
        words: The classes that any of its words may mean.
        hints: The same without words that are people's names, too.
        split_words: The splits that any of its words may mean.
    """

    labels: frozenset[int] = frozenset()
    splits: frozenset[Split] = frozenset()
    person: str = ""
    words: frozenset[int] = frozenset()
    hints: frozenset[int] = frozenset()
    split_words: frozenset[Split] = frozenset()


def join_words(text: str) -> str:
    """Return a name without case and without what stands between its words."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


_LABELS = {join_words(word): label for label, words in CLASS_WORDS.items() for word in words}
_SPLITS: dict[str, Split] = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_CAMEL = re.compile(r"(?<=[a-zà-ÿ])(?=[A-ZÀ-Ý])")
_BETWEEN = re.compile(r"(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)|[\W_]+")


def normalise(name: str) -> str:
    """Return a name in one form for comparison: composed, without case, one space between its words and numbers."""
    plain = unicodedata.normalize("NFKC", name).strip()
    return " ".join(word for word in _BETWEEN.split(_CAMEL.sub(" ", plain).casefold()) if word)


@lru_cache(maxsize=100_000)
def read_name(name: str) -> NameReading:
    """Read the words of a folder's name, or of a value in a table."""
    if (whole := join_words(name)) in _LABELS:
        one = frozenset((_LABELS[whole],))
        return NameReading(labels=one, words=one, hints=one)
    if whole in NEUTRAL:
        return NameReading()
    words = list_words(name)
    numbers = [word for word in words if word.isdigit()]
    others = [word for word in words if not word.isdigit()]
    labels = frozenset(_LABELS[word] for word in others if word in _LABELS)
    hints = frozenset(_LABELS[word] for word in others if word in _LABELS and word not in WEAK)
    splits: frozenset[Split] = frozenset(_SPLITS[word] for word in others if word in _SPLITS)
    rest = [word for word in others if not (word in _LABELS or word in _SPLITS or word in NEUTRAL)]
    if rest or not others:
        return NameReading(person=name, words=labels, hints=hints, split_words=splits)
    if len(labels) > 1 or len(splits) > 1:  # such as real_vs_fake, which holds both
        return NameReading()
    is_code = bool(labels) and words[0].isdigit()  # 0_real, 1_fake
    is_numbered = bool(numbers) and not is_code and not splits and not set(others) <= NUMBERED
    return NameReading(labels, splits, name if is_numbered else "", labels, hints, splits)


def list_words(name: str) -> list[str]:
    """List the words and numbers of a name; two that are one word of a class are joined, such as `bona fide`."""
    merged: list[str] = []
    for word in normalise(name).split():
        if merged and merged[-1] + word in _LABELS:
            merged[-1] += word
        else:
            merged.append(word)
    return merged


def is_known_word(word: str) -> bool:
    """Return whether a word is one of classes, splits or of nothing."""
    return word in NEUTRAL or word in _LABELS or word in _SPLITS


_FRAME = re.compile(
    r"(?P<film>.*?\w)(?:[\W_]+(?P<says>frame|frm|f)?[\W_]?|(?P<says2>frame|frm)[\W_]?)\d+", re.IGNORECASE
)


def split_frame_name(stem: str) -> tuple[str, bool] | None:
    """Split a name that may be a film's and the number of a frame, such as 071_0012 or ann_frame12.

    Words of classes, splits, cameras and pictures are no film.

    Args:
        stem: The file's name without suffix.

    Returns:
        The film, and whether the name has the word frame; None for a name of another form.
    """
    found = _FRAME.fullmatch(stem)
    if found is None:
        return None
    words = [word for word in normalise(found["film"]).split() if not word.isdigit()]
    if words and all(word in CAMERA or is_known_word(word) for word in words):
        return None
    return found["film"], bool(found["says"] or found["says2"])
