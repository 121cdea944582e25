"""Keys of selection and early stopping: which words, in which stage, and what a resume may change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from config_page import build_schema
from config_samples import WEIGHTS, resolve_keys
from sharpstudent.config.cli import CommandLine, parse_command_line
from sharpstudent.config.keys import build_file_model
from sharpstudent.config.load import validate_keys
from sharpstudent.config.messages import show
from sharpstudent.config.stored import compare_configs, load_run_config
from sharpstudent.core.errors import UserError
from sharpstudent.metrics.metric import Metric
from sharpstudent.registry import find_task
from sharpstudent.tasks.deepfake.task import DeepfakeTask

WORDS = list(DeepfakeTask.metrics)


def test_the_four_metrics_of_the_guide_can_select_and_the_auc_does_unless_another_is_named() -> None:
    assert {"auc", "video_auc", "ap", "eer"} <= set(WORDS)
    assert WORDS[0] == "auc"


def test_the_default_is_the_auc_of_frames_and_no_patience() -> None:
    for stage in (1, 2):
        training = resolve_keys(stage).training
        assert (training.selection_metric, training.patience) == ("auc", None)


@pytest.mark.parametrize("word", WORDS)
def test_each_stage_may_have_its_own_metric_and_patience(word: str) -> None:
    keys = {"selection_metric": word, "patience": 7, "stage2": {"selection_metric": "ap", "patience": 3}}
    assert resolve_keys(1, **keys).training.selection_metric == word
    assert resolve_keys(1, **keys).training.patience == 7
    assert (resolve_keys(2, **keys).training.selection_metric, resolve_keys(2, **keys).training.patience) == ("ap", 3)


@pytest.mark.parametrize("group", ["", "stage1", "stage2"])
@pytest.mark.parametrize("word", ["AUC", "val_auc", "f1", "", 3, None])
def test_any_other_metric_is_refused_with_the_choices(group: str, word: object) -> None:
    if group and word is None:
        return  # take the flat key
    keys = {"selection_metric": word}
    with pytest.raises(UserError) as caught:
        validate_keys(WEIGHTS | ({group: keys} if group else keys), DeepfakeTask)
    text = caught.value.as_text()
    assert f"{group}.selection_metric".removeprefix(".") in text
    assert f"one of {', '.join(map(show, WORDS))}" in text


@pytest.mark.parametrize("patience", [0, -1, 1.5, "3", True])
def test_a_patience_that_is_no_count_is_refused(patience: object) -> None:
    with pytest.raises(UserError, match="patience"):
        validate_keys(WEIGHTS | {"patience": patience}, DeepfakeTask)


def test_the_words_are_those_of_the_task() -> None:
    class Others(DeepfakeTask):
        metrics: ClassVar[Mapping[str, Metric]] = {"error": Metric(len, "lower"), "auc": Metric(len)}  # type: ignore[arg-type]

    assert validate_keys({}, Others).selection_metric == "error"
    assert validate_keys({"selection_metric": "auc", "stage1": {"selection_metric": "error"}}, Others)
    with pytest.raises(UserError):
        validate_keys({"selection_metric": "eer"}, Others)
    schema = build_schema(DeepfakeTask)
    assert schema["properties"]["selection_metric"]["enum"] == WORDS
    assert schema["$defs"]["Stage1Keys"]["properties"]["selection_metric"]["anyOf"][0]["enum"] == WORDS
    assert build_file_model(DeepfakeTask).model_fields["selection_metric"].default in WORDS


# --- A run that is resumed ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder of stage 1 with a patience of 3, and its CONFIG beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.json").write_text(json.dumps({"patience": 3}))
    run = tmp_path / "output" / "r_c_01_01_01_01_01"
    (run / "weights").mkdir(parents=True)
    (run / "weights" / "last.pth").touch()
    config = parse("c.json", "-n", "r").config
    (run / "config.json").write_text(config.model_dump_json())
    return run


def parse(*words: str) -> CommandLine:
    return parse_command_line(words, stage=1, find_task=find_task)


def test_patience_may_change_on_a_resume_without_config_and_with(folder: Path) -> None:
    assert parse("--resume", "r").config.training.patience == 3
    freed = parse("--resume", "r", "--set", "patience=null").config
    assert freed.training.patience is None
    assert compare_configs(load_run_config(folder, find_task), freed) == []
    assert parse("c.json", "--resume", "r", "--set", "patience=9").config.training.patience == 9
    assert parse("c.json", "-n", "r", "--resume", "auto", "--set", "patience=null").resume is not None


def test_where_a_storage_is_kept_may_change_on_a_resume_with_config(folder: Path) -> None:
    """It decides no sample, and another machine has another disk."""
    moved = parse("c.json", "--resume", "r", "--set", "cache_folder=/elsewhere", "--set", "cache_gb=5").config
    assert compare_configs(load_run_config(folder, find_task), moved) == []
    other = parse("c.json", "-n", "another", "--set", "fakes=labels").config
    assert any("fakes" in line for line in compare_configs(load_run_config(folder, find_task), other))


def test_the_metric_may_not_change_on_a_resume(folder: Path) -> None:
    with pytest.raises(UserError, match=r"differs|selection_metric"):
        parse("c.json", "--resume", "r", "--set", "selection_metric=eer")
    with pytest.raises(UserError, match="cannot change selection_metric"):
        parse("--resume", "r", "--set", "selection_metric=eer")


def test_the_config_of_a_run_from_before_these_keys_is_that_of_the_defaults(folder: Path) -> None:
    (folder.parents[1] / "c.json").write_text("{}")
    stored = json.loads((folder / "config.json").read_text())
    for name in ("selection_metric", "patience"):
        del stored["training"][name]
    (folder / "config.json").write_text(json.dumps(stored))
    assert parse("c.json", "--resume", "r").config.training.selection_metric == "auc"
