"""Whatever stands in a file or on the command line, the outcome is a RunConfig or a UserError and nothing else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from config_samples import GUIDE_BLOCK, WEIGHTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sharpstudent.config.cli import CommandLine, load_run_config, parse_command_line, print_resolved
from sharpstudent.config.keys import build_file_model
from sharpstudent.config.run_config import RunConfig, Stage
from sharpstudent.core.errors import UserError
from sharpstudent.registry import find_task
from sharpstudent.tasks.deepfake.task import DeepfakeTask

FAST = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
SLOW = settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))

KNOWN = [*build_file_model(DeepfakeTask).model_fields, "alpha", "$schema", "epochs"]
SCALARS = st.none() | st.booleans() | st.integers() | st.integers(0, 40) | st.floats() | st.floats(0, 1) | st.text()
SCALARS = SCALARS | st.sampled_from(["cpu", "ffpp", "adamw", "deepfake", "c40", "\ud800", "NaN"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KNOWN), inner), max_leaves=6
)
NAMES = st.sampled_from(KNOWN) | st.text()
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=8)
STAGES = st.sampled_from([1, 2])


def cut_and_paste(draw: st.DrawFn) -> bytes:
    """The guide's block with a piece replaced: nearly right files, where most mistakes are."""
    block = GUIDE_BLOCK.encode()
    start = draw(st.integers(0, len(block)))
    end = draw(st.integers(start, min(len(block), start + 30)))
    return block[:start] + draw(st.binary(max_size=8) | st.sampled_from([b"NaN", b"{", b"1e999", b'"'])) + block[end:]


CONTENTS = st.binary(max_size=200) | st.composite(cut_and_paste)()


def parse_or_error(argv: list[str], stage: Stage) -> CommandLine | UserError:
    try:
        return parse_command_line(argv, stage=stage, find_task=find_task)
    except UserError as error:
        return error


def check(content: bytes, stage: Stage, *argv: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.json")
        file.write_bytes(content)
        outcome = parse_or_error([str(file), "-n", "fuzz", *argv], stage)
        if isinstance(outcome, UserError):
            assert all(problem.where and problem.what for problem in outcome.problems)
            assert outcome.as_text().encode("utf-8", "backslashreplace")  # as standard error prints it
            return
        config = outcome.config
        assert isinstance(config, RunConfig)
        assert print_resolved(config)
        file.write_text(config.model_dump_json(indent=2), encoding="utf-8")
        assert load_run_config(file, find_task) == config


def check_object(keys: dict[str, Any], stage: Stage) -> None:
    check(json.dumps(keys).encode(), stage)


def check_override(name: str, value: str, stage: Stage) -> None:
    check(json.dumps(WEIGHTS).encode(), stage, "--set", f"{name}={value}")


@FAST
@given(CONTENTS, STAGES)
def test_any_bytes_give_a_config_or_a_message(content: bytes, stage: Stage):
    check(content, stage)


@FAST
@given(OBJECTS, STAGES)
def test_any_json_object_gives_a_config_or_a_message(keys: dict[str, Any], stage: Stage):
    check_object(keys, stage)


@FAST
@given(st.tuples(st.sampled_from(KNOWN), VALUES), STAGES)
def test_any_value_of_a_known_key_gives_a_config_or_a_message(item: tuple[str, Any], stage: Stage):
    check_object(WEIGHTS | {item[0]: item[1]}, stage)


@FAST
@given(NAMES, st.text() | VALUES.map(json.dumps), STAGES)
def test_any_override_gives_a_config_or_a_message(name: str, value: str, stage: Stage):
    check_override(name, value, stage)


@pytest.mark.slow
@SLOW
@given(CONTENTS, STAGES)
def test_ten_thousand_files_of_any_bytes(content: bytes, stage: Stage):
    check(content, stage)


@pytest.mark.slow
@SLOW
@given(OBJECTS, STAGES)
def test_ten_thousand_json_objects(keys: dict[str, Any], stage: Stage):
    check_object(keys, stage)


@pytest.mark.slow
@SLOW
@given(NAMES, st.text() | VALUES.map(json.dumps), STAGES)
def test_ten_thousand_overrides(name: str, value: str, stage: Stage):
    check_override(name, value, stage)
