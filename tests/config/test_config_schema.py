"""The generated files are up to date, the schema knows every key, and importing the package stays cheap."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from config_page import build_config_docs, build_schema
from config_samples import ROOT, SHIPPED
from sharpstudent.config.keys import FileKeys, Stage2Keys, build_file_model
from sharpstudent.config.load import read_config_file
from sharpstudent.config.run_config import TaskSection
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.task import DeepfakeTask


def test_the_schema_and_the_page_in_the_repository_are_up_to_date():
    spec = importlib.util.spec_from_file_location("generate_configs", ROOT / "configs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.build_texts().items():
        assert path.read_text(encoding="utf-8") == text, f"run python configs/generate.py: {path} is out of date"


def test_the_schema_describes_every_key_and_refuses_others():
    schema = build_schema(DeepfakeTask)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == {"$schema", *FileKeys.model_fields, *DeepfakeSection.model_fields}
    for place in (schema, schema["$defs"]["Stage1Keys"], schema["$defs"]["Stage2Keys"]):
        assert place["additionalProperties"] is False
        assert all(found["description"] for found in place["properties"].values())
    assert schema["properties"]["lr"]["default"] == 0.00005


def test_the_shipped_config_names_the_schema_and_only_keys_of_it():
    text = SHIPPED.read_text(encoding="utf-8")
    assert '"$schema": "./schema.json"' in text
    assert set(read_config_file(SHIPPED)) <= set(build_schema(DeepfakeTask)["properties"])


def test_the_page_explains_every_key():
    page = build_config_docs(DeepfakeTask)
    for name in (*FileKeys.model_fields, *DeepfakeSection.model_fields, *Stage2Keys.model_fields):
        assert f"| `{name}` |" in page


def test_a_task_cannot_redefine_a_shared_key():
    class GreedyKeys(TaskSection):
        flat_keys = True
        lr: float = 1.0

    class Greedy(DeepfakeTask):
        Section = GreedyKeys

    with pytest.raises(ValueError, match=r"\['lr'\]"):
        build_file_model(Greedy)


def test_the_config_is_imported_without_torch_and_numpy():
    code = (
        "import sys, sharpstudent.config.cli; "
        "heavy = {'torch', 'numpy', 'cv2', 'sharpstudent.tasks'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
