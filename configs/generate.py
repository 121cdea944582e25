"""Writes configs/schema.json and docs/config.md from the models: `python configs/generate.py`, after changing a key."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lib.config.schema import build_config_docs, schema_text  # noqa: E402
from lib.tasks.deepfake.section import DeepfakeSection  # noqa: E402


def build_texts() -> dict[Path, str]:
    """What each generated file should hold."""
    return {
        ROOT / "configs" / "schema.json": schema_text(DeepfakeSection),
        ROOT / "docs" / "config.md": build_config_docs(DeepfakeSection),
    }


if __name__ == "__main__":
    for path, text in build_texts().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
