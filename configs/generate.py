"""Writes configs/schema.json, docs/config.md and docs/results.schema.json from the models: `python
configs/generate.py`, after changing a key.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sharpstudent.config.json_schema import build_config_docs, schema_text
from sharpstudent.report.results import Results
from sharpstudent.tasks.deepfake.section import DeepfakeSection


def build_texts() -> dict[Path, str]:
    """What each generated file should hold."""
    return {
        ROOT / "configs" / "schema.json": schema_text(DeepfakeSection),
        ROOT / "docs" / "config.md": build_config_docs(DeepfakeSection),
        ROOT / "docs" / "results.schema.json": json.dumps(Results.model_json_schema(), indent=2) + "\n",
    }


if __name__ == "__main__":
    for path, text in build_texts().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
