"""A run's config.json may be passed on; with private.json beside it, it is the whole config again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from config_samples import resolve_keys
from sharpstudent.config.run_config import RunConfig
from sharpstudent.config.stored import PRIVATE_NAME, STORED_NAME, compare_configs, load_run_config, split_private
from sharpstudent.core.errors import UserError
from sharpstudent.core.naming import PathHider
from sharpstudent.registry import find_task


def write_run(folder: Path, **keys: Any) -> RunConfig:
    """Write both files as a run does; returns the config."""
    config = resolve_keys(2, **keys)
    shown, private = split_private(config, PathHider(config.model_dump(mode="json")))
    (folder / STORED_NAME).write_text(shown, encoding="utf-8")
    if private is not None:
        (folder / PRIVATE_NAME).write_text(private, encoding="utf-8")
    return config


ABSOLUTE = {
    "data_root": "/mnt/alice's disk/ff",
    "output_root": "/scratch/alice/out",
    "student_init": "/nas/alice/i.pth",
}


def test_both_files_together_are_the_config_to_the_last_value(tmp_path: Path) -> None:
    config = write_run(tmp_path, **ABSOLUTE)
    assert "alice" not in (tmp_path / STORED_NAME).read_text(encoding="utf-8")
    assert compare_configs(load_run_config(tmp_path, find_task), config) == []
    assert load_run_config(tmp_path, find_task) == config


def test_a_run_with_relative_paths_needs_no_private_file(tmp_path: Path) -> None:
    config = write_run(tmp_path)
    assert not (tmp_path / PRIVATE_NAME).exists()
    assert load_run_config(tmp_path, find_task) == config


def test_a_value_that_the_user_changed_since_is_not_put_back(tmp_path: Path) -> None:
    write_run(tmp_path, **ABSOLUTE)
    stored = json.loads((tmp_path / STORED_NAME).read_text(encoding="utf-8"))
    stored["task_section"]["data_root"] = "data/moved"
    (tmp_path / STORED_NAME).write_text(json.dumps(stored), encoding="utf-8")
    found = load_run_config(tmp_path, find_task)
    assert found.task_section.model_dump()["data_root"] == "data/moved"
    assert found.output_root == "/scratch/alice/out"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"paths": [{"key": ["no"]}]}', b'{"paths": 3}'])
def test_a_private_file_that_cannot_be_read_is_named_with_the_way_on(tmp_path: Path, content: bytes) -> None:
    write_run(tmp_path, **ABSOLUTE)
    (tmp_path / PRIVATE_NAME).write_bytes(content)
    with pytest.raises(UserError, match=r"private\.json: cannot be read") as caught:
        load_run_config(tmp_path, find_task)
    assert "--allow changed-config" in str(caught.value)
