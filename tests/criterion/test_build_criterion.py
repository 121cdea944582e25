"""From the config's terms to the criterion."""

import pytest
import torch

from lib.config.sections import ScheduleSection, TermSection
from lib.criterion.build import build_criterion
from lib.criterion.distillation import compute_kd
from lib.schedules import Progress
from lib.types import Batch, Outputs

ALPHA = ScheduleSection(kind="staircase", start=0.95, end=0.5, epochs=20)
HARD = TermSection(name="hard", term="hard", weight=ALPHA)
KD = TermSection(
    name="kd",
    term="kd",
    weight=ALPHA.model_copy(update={"complement": True}),
    numbers={"temperature": ScheduleSection(kind="constant", value=3.0)},
)
ONE = ScheduleSection(kind="constant", value=1.0)


def at_epoch(epoch: int) -> Progress:
    return Progress(epoch=epoch, step=0, epochs=100, steps_per_epoch=4)


@pytest.mark.parametrize(("epoch", "alpha"), [(1, 0.95), (5, 0.95), (6, 0.85), (11, 0.75), (20, 0.65), (21, 0.5)])
def test_stage_2_follows_the_table_of_the_guide(epoch: int, alpha: float) -> None:
    weights = build_criterion([HARD, KD]).weights(at_epoch(epoch))
    assert weights == {"hard": alpha, "kd": round(1 - alpha, 12)}


def test_stage_1_is_hard_labels_alone_and_needs_no_teacher() -> None:
    criterion = build_criterion([TermSection(name="hard", term="hard", weight=ONE)])
    assert criterion.weights(at_epoch(1)) == {"hard": 1.0}
    assert not criterion.needs_teacher


def test_kd_reaches_the_teachers_logits_at_its_temperature() -> None:
    student, teacher = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    batch = Batch(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), ("a", "b"), ("a", "b"), ("a", "b"))
    criterion = build_criterion(
        [
            TermSection(
                name="kd", term="kd", weight=ONE, numbers={"temperature": ScheduleSection(kind="constant", value=2.5)}
            )
        ]
    )
    total = criterion(Outputs(student), batch, Outputs(teacher), at_epoch(1)).total
    assert torch.equal(total, compute_kd(student, teacher, 2.5))
    assert criterion.needs_teacher
    assert criterion.temperature(at_epoch(1)) == 2.5
