"""Stage 2 with several teachers, and the layers that both scripts list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sharpstudent.models.weights import compute_weights_hash
from workplace import STAGE_1, STAGE_2, Workplace

CONFIG = "configs/tiny.json"
TEACHERS = [
    {"model": "test_resnet", "weights": "weights/first.pth", "weight": 3.0, "classes": ["fake", "real"]},
    {"model": "test_vit", "weights": "weights/second.pth", "input_size": 160, "mean": [0.5, 0.5, 0.5]},
]
SET_TEACHERS = ("--set", f"teachers={json.dumps(TEACHERS)}", "--set", "teacher_weights=null")
# Stage 2 without stage 1, one short epoch.
ALONE = ("--set", "pretrained_student_weights=null", "--allow", "unpretrained-student", "--set", "epoch=1")


@pytest.fixture
def taught(tiny: Workplace) -> Workplace:
    """A user's folder with two teachers of different architectures."""
    from sharpstudent.models.vision import build_classifier

    (tiny / "weights").mkdir(exist_ok=True)
    for number, teacher in enumerate(TEACHERS):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            model = build_classifier(str(teacher["model"]), classes=2, dropout=None)
        torch.save({"model": model.state_dict()}, tiny / str(teacher["weights"]))
    return tiny


def test_two_teachers_stay_unchanged_and_out_of_every_checkpoint(
    taught: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.train.step import TrainStep

    hashes: list[str] = []
    take = TrainStep.__call__

    def note_and_take(self: TrainStep, *args: object) -> object:
        assert self.teacher is not None
        hashes.append(compute_weights_hash(self.teacher))
        result = take(self, *args)  # type: ignore[arg-type]
        hashes.append(compute_weights_hash(self.teacher))
        return result

    monkeypatch.setattr(TrainStep, "__call__", note_and_take)
    done = taught.call(STAGE_2, CONFIG, "-n", "both", *SET_TEACHERS, *ALONE)
    assert done.code == 0, done.err
    assert "teacher 1 weights/first.pth: " in done.out
    assert "teacher 2 weights/second.pth: " in done.out
    assert "2 teachers, the average of their logits: test_resnet 75%, test_vit 25%" in done.out
    assert len(hashes) == 16
    assert len(set(hashes)) == 1
    run = taught.find_run("both")
    stored = json.loads((run / "config.json").read_text())
    assert [teacher["name"] for teacher in stored["teachers"]] == ["test_resnet", "test_vit"]
    checkpoints = list(run.rglob("*.pth"))
    assert len(checkpoints) >= 3
    student = set(_load(run / "weights/best_model.pth"))
    taught_by = {_hash(t) for path in _list_files(taught) for t in _load(path).values() if t.ndim == 4}
    for path in checkpoints:
        assert set(_load(path)) == student, path
        stored = list(_find_tensors(torch.load(path, weights_only=True)))
        assert stored
        assert not taught_by & {_hash(tensor) for tensor in stored}, path


def _list_files(place: Workplace) -> list[Path]:
    return [place / str(teacher["weights"]) for teacher in TEACHERS]


def _find_tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _find_tensors(inner)


def _hash(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _load(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def test_the_ensemble_logits_are_the_weighted_mean_of_both_teachers(
    taught: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.core.types import Outputs
    from sharpstudent.models.teachers import TeacherEnsemble

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    forward = TeacherEnsemble.forward

    def note(self: TeacherEnsemble, **inputs: torch.Tensor) -> Outputs:
        outputs = forward(self, **inputs)
        alone = [member(**inputs)["logits"] for member in self.members]
        seen.append((outputs["logits"], 0.75 * alone[0] + 0.25 * alone[1]))
        return outputs

    monkeypatch.setattr(TeacherEnsemble, "forward", note)
    done = taught.call(STAGE_2, CONFIG, "-n", "both", *SET_TEACHERS, *ALONE, "--dry-run")
    assert done.code == 0, done.err
    assert seen
    for ours, expected in seen:
        torch.testing.assert_close(ours, expected)


def test_a_run_with_two_teachers_can_be_resumed(taught: Workplace) -> None:
    assert taught.call(STAGE_2, CONFIG, "-n", "both", *SET_TEACHERS, *ALONE).code == 0
    run = taught.find_run("both")
    again = taught.call(STAGE_2, "--resume", str(run))
    assert again.code == 0, again.err
    other = [TEACHERS[0], TEACHERS[1] | {"weight": 2.0}]
    words = (*SET_TEACHERS, *ALONE, "--set", f"teachers={json.dumps(other)}")
    refused = taught.call(STAGE_2, CONFIG, "--resume", str(run), *words)
    assert refused.code == 2
    assert "teachers.1.weight" in refused.err


@pytest.mark.parametrize("script", [STAGE_1, STAGE_2])
def test_layers_are_listed_without_data_and_weights(workplace: Workplace, script: str) -> None:
    done = workplace.call(script, "configs/config_SBI.json", "--list-layers", "--set", "student=mobilevitv2_050")
    assert done.code == 0, done.err
    assert "student mobilevitv2_050, image (B, 3, " in done.out
    assert "backbone.stages.4" in done.out
    assert ("teacher efficientnet-b4, image (B" in done.out) == (script == STAGE_2)
    assert ("net._blocks.31" in done.out) == (script == STAGE_2)
    assert workplace.list_output() == []


def test_an_unknown_model_is_refused_before_any_layer_is_printed(workplace: Workplace) -> None:
    done = workplace.call(STAGE_1, "configs/config_SBI.json", "--list-layers", "--set", "student=mobilevit9")
    assert done.code == 2
    assert "mobilevit9" in done.err
    assert "Traceback" not in done.err


def test_a_fitted_head_of_a_random_network_is_refused_before_anything_is_opened(workplace: Workplace) -> None:
    fitted = json.dumps([{"model": "test_resnet", "head": "fitted", "classes": ["fake", "real"]}])
    words = ("--set", f"teachers={fitted}", "--set", "teacher_weights=null")
    done = workplace.call(STAGE_2, "configs/config_SBI.json", "-n", "x", *words)
    assert done.code == 2
    assert "teachers[0].weights: is missing, and a head that is fitted to a random network" in done.err
    assert "teachers[0].classes: gives the class order of a head in the file, and this head is fitted" in done.err
