"""The core knows no task: outside `tasks/` and `modalities/` no Python file of the package speaks of faces.

Identifiers are split at underscores and capitals, strings and comments into words. Hugging Face is a name.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lib" / "sharpstudent"
OF_TASKS = ("tasks", "modalities")
WORDS = {"real", "reals", "fake", "fakes", "face", "faces", "deepfake", "deepfakes", "rgb"}
# An AUC may be computed and told by its own name; joined with any other word it has a role that not every task gives.
ITSELF = {"auc", "compute", "find", "format", "say", "roc", "by", "rank", "score", "test", "build", "metrics"}
MOST_ALLOWED = 5
ALLOWED = {
    "config/presets.py": "a config that names no task is the two-stage guide's, whose task it names",
    "models/vision.py": "models of pictures say which channels they take",
    "evaluation/load_model.py": "weights of other programs are opened with the size and the colours of their pictures",
}
TOKENS = {tokenize.NAME, tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}


def split(identifier: str) -> list[str]:
    """`SelfBlendTask`, `self_blend_task` -> self, blend, task."""
    pieces = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+", identifier)
    return [piece.lower() for piece in pieces]


def find_words(identifier: str) -> Iterator[str]:
    parts = split(identifier)
    yield from (part for part in parts if part in WORDS)
    yield from ("image_size" for pair in pairwise(parts) if pair == ("image", "size"))
    if "auc" in {part.removesuffix("s") for part in parts} and len(parts) > 1 and not set(parts) <= {*ITSELF, "aucs"}:
        yield identifier


def count_words(source: str) -> Counter[str]:
    """The words of one task in a file."""
    found: Counter[str] = Counter()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in TOKENS:
            for identifier in re.findall(r"[A-Za-z_][A-Za-z_0-9]*", token.string.replace("Hugging Face", "")):
                found.update(find_words(identifier))
    return found


def count_package() -> dict[str, Counter[str]]:
    """By file, those that have any."""
    files = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
    counted = {
        str(file): count_words((PACKAGE / file).read_text(encoding="utf-8"))
        for file in files
        if file.parts[0] not in OF_TASKS
    }
    return {file: found for file, found in counted.items() if found}


def test_no_file_of_the_core_speaks_of_a_task() -> None:
    told = {file: dict(found) for file, found in count_package().items() if file not in ALLOWED}
    assert not told, "\n".join(f"{file}: {found}" for file, found in told.items())


def test_the_files_that_may_are_few_and_have_a_reason() -> None:
    assert len(ALLOWED) <= MOST_ALLOWED
    assert all(len(reason.split()) > 4 for reason in ALLOWED.values())
    assert set(ALLOWED) <= set(count_package()), "a file that no longer needs it leaves the list"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("val_auc = 1", ["val_auc"]),
        ("PICTURE_AUCS = 1", ["PICTURE_AUCS"]),
        ("image_size = imageSize = IMAGE_SIZE", ["image_size"] * 3),
        ("class FaceCut: pass  # one real picture in RGB", ["face", "real", "rgb"]),
        ('x = f"{y} fakes of a surface, realistic"', ["fakes"]),
        ("auc = compute_auc(); roc_auc_score; 'the AUC'; size_of_image; interface", []),
    ],
)
def test_what_counts_as_such_a_word(source: str, words: list[str]) -> None:
    assert sorted(count_words(source + "\n").elements()) == sorted(words)
