"""Stage 1 from a trained model: its head comes too, and a model of another form is refused with the words to add."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sharpstudent.checkpoint.store import save_checkpoint
from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import compute_sha256
from sharpstudent.core.shipped import find_shipped
from sharpstudent.models.build import build_student
from sharpstudent.models.trained_start import describe_start
from sharpstudent.models.weights import find_fitting_weights
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from small_models import SMALL, PictureModels, are_equal, build_small
from tiny_runs import make_config

FACTS = {"classes": ["real", "fake"], "image_size": 32, "fakes": ["self-blend"]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(path: str = "output/mine/weights/best_model.pth", *, seed: int = 1, **about: Any) -> dict[str, Any]:
    """A checkpoint as a run writes it; `about` changes its description."""
    state = build_small(seed).state_dict()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    told = {"architecture": SMALL, "task": "deepfake", "facts": FACTS, **about}
    save_checkpoint(Path(path), {"model": state}, about=told)
    return state


def start_from(word: str, **student: Any) -> tuple[torch.nn.Module, list[str], list[Path]]:
    config: RunConfig = make_config(stage=1, student=SMALL)
    section = config.student.model_copy(update={"weights": word, **student})
    config = config.model_copy(update={"student": section, "task_section": DeepfakeSection(image_size=32)})
    lines, files = list[str](), list[Path]()
    return build_student(config, PictureModels(), say=lines.append, tell_start=files.append), lines, files


@pytest.mark.parametrize(
    "word", ["output/mine", "output/m*/weights/best_model.pth", "output/mine/weights/best_model.pth"]
)
def test_a_run_a_pattern_or_a_file_gives_every_weight_with_the_head(word: str) -> None:
    state = save()
    model, lines, files = start_from(word)
    assert are_equal(model.state_dict(), state)
    assert files == [Path("output/mine/weights/best_model.pth")]
    assert "0 missing, 0 unexpected" in lines[-1]
    assert describe_start(files[0]) == {"file": "best_model.pth", "sha256": compute_sha256(files[0])}


def test_the_name_of_a_model_of_the_package_is_its_file_wherever_weights_are_named() -> None:
    for key in ("start", "teacher_weights"):
        path, notes = find_fitting_weights("deepfake-small", build_small(0), key=key)
        assert (path, notes) == (find_shipped("deepfake-small"), [])


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"architecture": "test_vit"}, ("student test_vit", "got: student test_resnet", "add --set student=test_vit")),
        ({"facts": {**FACTS, "image_size": 112}}, ("image_size 112", "image_size 32", "add --set image_size=112")),
        (
            {"architecture": "test_vit", "facts": {**FACTS, "image_size": 112}},
            ("add --set student=test_vit --set image_size=112",),
        ),
        (
            {"options": {"mean": [0.5, 0.4, 0.3]}},
            ('--set \'student={"name": "test_resnet", "mean": [0.5, 0.4, 0.3]}\'',),
        ),
        ({"facts": {**FACTS, "classes": ["fake", "real"]}}, ('classes ["fake", "real"]', "give a start of this form")),
        ({"task": "gaze"}, ("task gaze", "task deepfake", "give a start of this form")),
    ],
)  # fmt: skip
def test_a_start_of_another_form_is_refused_in_one_message_with_the_words_that_take_it(
    about: dict[str, Any], words: tuple[str, ...]
) -> None:
    save(**about)
    with pytest.raises(UserError) as caught:
        start_from("output/mine")
    assert len(caught.value.problems) == 1
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_start_may_have_learnt_from_other_fakes_and_state_options_that_are_switched_off() -> None:
    state = save(facts={**FACTS, "fakes": ["face swap"]}, options={"unit_norm": False, "mean": None})
    assert are_equal(start_from("output/mine")[0].state_dict(), state)


def test_the_texts_in_a_safetensors_file_are_read_as_a_checkpoint_s_description() -> None:
    from safetensors.torch import save_file

    facts = json.dumps({**FACTS, "image_size": 64})
    save_file(build_small(1).state_dict(), "m.safetensors", {"architecture": SMALL, "task": "deepfake", "facts": facts})
    with pytest.raises(UserError, match="--set image_size=64"):
        start_from("m.safetensors")


def test_bare_weights_are_taken_with_a_note_on_what_nobody_can_check() -> None:
    torch.save(build_small(1).state_dict(), "bare.pth")
    _, lines, _ = start_from("bare.pth")
    assert "does not describe itself" in lines[-1]


def test_a_backbone_without_its_head_is_no_start() -> None:
    state = {name: value for name, value in build_small(1).state_dict().items() if "head" not in name}
    torch.save(state, "body.pth")
    with pytest.raises(UserError, match="does not fit the model"):
        start_from("body.pth")


def test_a_misspelt_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(UserError, match="did you mean deepfake-small"):
        start_from("deepfake-smal")
