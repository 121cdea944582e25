"""The rules of `compare_models.py check`: each on a run that has the fault, and silent on one that has not."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sharpstudent.config.cli import parse_command_line
from sharpstudent.core.errors import UserError
from sharpstudent.registry import find_task
from sharpstudent.task import Advice
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.advice import RunRecord, advise, main, measure_movements

KEYS = '{"data_source": "labelled", "data_root": "d", "student": "test_efficientnet", "teacher": "test_resnet", '
KEYS += '"teacher_weights": "t.pth", "pretrained_student_weights": "s.pth", "stage2": {"epoch": 8}}'
HEALTHY = (0.7, 0.8, 0.85, 0.88, 0.9, 0.91, 0.915, 0.92)


def make_rows(values: Sequence[float], **columns: Sequence[float]) -> list[dict[str, Any]]:
    rows = [
        {"epoch": place + 1, "val_auc": value, "train_loss": 1.0 / (place + 1), "train_hard": 0.6 / (place + 1)}
        for place, value in enumerate(values)
    ]
    for place, row in enumerate(rows):
        row |= {"train_kd": 0.5 / (place + 1), "kd_hard_ratio": 2.0, "kd/weight": 0.5, "hard/weight": 0.5}
        row |= {name: column[place] for name, column in columns.items()}
    return rows


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    path: Path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(KEYS)
    config = parse_command_line([str(path), "-n", "x"], stage=2, find_task=find_task).config
    models = {"student a": {"val_auc": 0.8}, "teacher b": {"val_auc": 0.9}}
    return RunRecord(config, DeepfakeTask, make_rows(HEALTHY), models)


def test_a_healthy_run_gets_no_advice(healthy: RunRecord) -> None:
    assert advise(healthy) == []


@pytest.mark.parametrize(
    ("rows", "said", "seen"),
    [
        (make_rows(HEALTHY, kd_hard_ratio=[2.0] * 7 + [15.6]), "the labels hardly count", "16 times"),
        (make_rows(HEALTHY, kd_hard_ratio=[2.0] * 7 + [0.05]), "little is distilled", "0.05 times"),
        (make_rows(HEALTHY, train_kd=[0.0] * 8), "the term kd teaches nothing", "train_kd is 0 in each of 8 epochs"),
        (make_rows((0.9, 0.95, 0.996)), "at its ceiling", "val_auc 0.9960 in epoch 3"),
        (make_rows((0.5, 0.51, 0.52)), "the model guesses", "chance is 0.5"),
        (make_rows((0.8, 0.9, 0.88, 0.86, 0.84)), "overfit", "val_auc 0.9000 in epoch 2"),
        (make_rows((0.6, 0.65, 0.7, 0.8)), "still learning", "val_auc 0.8000 in epoch 4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_named_with_its_evidence(
    healthy: RunRecord, rows: list[dict[str, Any]], said: str, seen: str
) -> None:
    (found,) = advise(replace(healthy, rows=rows))
    assert said in found.what
    assert seen in found.evidence
    assert found.remedy


def test_a_teacher_below_the_student_is_named(healthy: RunRecord) -> None:
    (found,) = advise(replace(healthy, models={"student a": {"val_auc": 0.9}, "teacher b": {"val_auc": 0.8}}))
    assert "weaker" in found.what
    assert "0.8000" in found.evidence


def train_norms(images: torch.Tensor, batches: int) -> list[dict[str, torch.Tensor]]:
    """The states of two BatchNorm layers before and after an epoch over pictures in their order, as of a long run."""
    norms = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.BatchNorm2d(3))
    states = []
    for _ in range(9):
        for batch in images.chunk(batches):
            norms(batch)
            states.append({name: value.clone() for name, value in norms.state_dict().items()})
    return [states[-batches - 1 - batches // 2], states[-1]]


def test_statistics_of_batchnorm_that_drift_are_named_and_settled_ones_are_not(healthy: RunRecord) -> None:
    torch.manual_seed(2)
    dark, bright = torch.randn(64, 3, 4, 4), 2.0 + 3.0 * torch.randn(64, 3, 4, 4)
    mixed = torch.cat([dark, bright])[torch.randperm(128)]
    assert advise(replace(healthy, norms=measure_movements(*train_norms(mixed, 8)))) == []
    # First all dark pictures, then all bright ones: the statistics are those of the last batches.
    (found,) = advise(replace(healthy, norms=measure_movements(*train_norms(torch.cat([dark, bright]), 16))))
    assert "statistics of BatchNorm drift" in found.what
    assert "most in 0, by a factor of" in found.evidence
    assert "now 4" in found.remedy


def test_a_control_without_distillation_is_healthy(healthy: RunRecord) -> None:
    assert advise(replace(healthy, rows=make_rows(HEALTHY, kd_hard_ratio=[0.0] * 8))) == []


def test_a_task_adds_rules_of_its_own(healthy: RunRecord) -> None:
    class Own(DeepfakeTask):
        @classmethod
        def advise(cls, rows: Sequence[Any]) -> list[Advice]:
            return [Advice("too few", f"{len(rows)} epochs", "more")]

    assert [one.what for one in advise(replace(healthy, task=Own))] == ["too few"]


def test_the_command_prints_what_it_finds_and_exits_with_1(
    healthy: RunRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(healthy.config.model_dump_json())
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "metrics.csv"
    columns = "epoch,val_auc,kd_hard_ratio,hard/weight,kd/weight"
    log.write_text(f"{columns}\n1,0.8,15.0,0.1,0.9\n")  # as large as the labels' loss, and wanted to weigh more
    main([str(tmp_path)])
    assert capsys.readouterr().out == "1 epoch: nothing found\n"
    log.write_text(f"{columns}\n1,0.8,15.0,0.5,0.5\n")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path)])
    assert ended.value.code == 1
    assert "seen: in epoch 1 the losses of the teacher's terms are 15 times" in capsys.readouterr().out


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the folder of a run"):
        main([str(tmp_path)])
