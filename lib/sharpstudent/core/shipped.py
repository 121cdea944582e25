"""Trained models that come with the package, by name. Importing this loads no torch.

Each is three files in `sharpstudent/shipped/`: NAME.safetensors, its model card NAME.md, whose title says in one line
what the model is for, and NAME.safetensors.sha256 as `sha256sum` writes it. `demo/ship_model.py` makes the first and
the last. A path that exists is never taken for a name.
"""

from __future__ import annotations

import difflib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import read_text
from sharpstudent.core.io import compute_sha256

FOLDER = Path(__file__).resolve().parents[1] / "shipped"
ENDING, DIGEST_ENDING = ".safetensors", ".safetensors.sha256"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class ShippedModel:
    """A model that comes with the package.

    Attributes:
        name: What users call it.
        path: The file of its weights.
        card: The file of its model card.
        summary: What it is for, in one line.
    """

    name: str
    path: Path
    card: Path
    summary: str


def list_shipped() -> list[ShippedModel]:
    """List the models that come with the package, by name."""
    return [_describe(path.name.removesuffix(DIGEST_ENDING)) for path in sorted(FOLDER.glob(f"*{DIGEST_ENDING}"))]


def find_shipped(word: str) -> Path | None:
    """Find the file of a model that comes with the package, and check that it is whole.

    Args:
        word: What the user wrote.

    Returns:
        The path of the file; None where the word is a path that exists, or no name of such a model.

    Raises:
        UserError: If the file is missing or has another sha256 than the package lists.
    """
    digest = FOLDER / f"{word}{DIGEST_ENDING}"
    if _NAME.fullmatch(word) is None or not digest.is_file() or Path(word).exists():
        return None
    path, expected = FOLDER / f"{word}{ENDING}", _read(digest).split()[:1]
    found = [compute_sha256(path)] if path.is_file() else []
    if found != expected:
        got = f"sha256 {found[0]}" if found else "no such file"
        raise UserError.about(
            str(path),
            f"is not the model {word} of this package",
            expected=f"sha256 {' '.join(expected)}",
            got=got,
            remedy=f"install the package again, or in a checkout: git checkout -- {shlex.quote(str(FOLDER))}",
        )
    return path


def hint_shipped(word: str) -> str:
    """Write which models come with the package, for the message about a path that does not exist.

    Args:
        word: The path; one without folders and ending may be a misspelt name.
    """
    names = [model.name for model in list_shipped()]
    near = difflib.get_close_matches(word, names, n=1) if _NAME.fullmatch(word) else []
    told = f"models that come with the package: {', '.join(names) or 'none'}"
    return f"did you mean {near[0]}? {told}" if near else told


def _describe(name: str) -> ShippedModel:
    card = FOLDER / f"{name}.md"
    titles = [line for line in _read(card).splitlines() if line.startswith("# ")] or ["it has no card"]
    return ShippedModel(name, FOLDER / f"{name}{ENDING}", card, titles[0].removeprefix("# ").removeprefix(f"{name}: "))


def _read(path: Path) -> str:
    """Read a small text of the package; "" where it is missing or damaged."""
    try:
        return read_text(path, errors="replace")
    except OSError:
        return ""
