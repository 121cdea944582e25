"""`make demo`: its last part is a command line that compare_models.py takes, on the newest runs of the demo."""

from __future__ import annotations

from pathlib import Path

import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.evaluation.command_line import COMPARE, parse_command_line
from sharpstudent.tasks.deepfake.evaluation.command_line import FaceRequest
from sharpstudent.tasks.deepfake.evaluation.robustness import choose_corruptions

from demo import compare


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("demo_teacher_1", "demo_student_demo_1", "demo_distill_demo_1"):
        weights = tmp_path / "output" / name / "weights"
        weights.mkdir(parents=True)
        (weights / "best_model.pth").write_bytes(b"")
    return tmp_path


def test_the_comparison_names_the_three_models_in_their_roles_and_both_kinds_of_fake(runs: Path) -> None:
    _, request = parse_command_line(compare.build_arguments(), script=COMPARE)
    assert isinstance(request, FaceRequest)
    assert [(model.role, model.name, model.path.is_dir()) for model in request.models] == [
        ("teacher", "Teacher", True),
        ("before", "Student pre-trained", True),
        ("distilled", "Student + distillation", True),
    ]
    assert [data.name for data in request.data] == ["self-blends", "swaps"]
    assert request.choices.crops
    assert request.costs
    choose_corruptions(request.robustness, print)


def test_a_model_of_the_demo_that_was_not_trained_is_named(runs: Path) -> None:
    (runs / "output/demo_distill_demo_1/weights/best_model.pth").unlink()
    with pytest.raises(UserError, match="demo_distill"):
        compare.build_arguments()
