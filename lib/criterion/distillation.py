"""The soft-label term (Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2).

    KD = T^2 * mean over the batch of sum_c p_t(c) (log p_t(c) - log p_s(c)),   p = softmax(logits / T)

T^2 keeps the gradient's size when T changes. Legend: B images, C classes, T temperature.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from lib.config.sections import TermSection
from lib.criterion.section import Shapes, check_outputs, make_term
from lib.criterion.weighted_sum import WeightedTerm
from lib.types import Batch, Outputs


def build(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """The term of this section. Raises UserError for a head of one output."""
    check_outputs(section, shapes, least=2, why="the softmax of one output is always 1, and its gradient 0")
    return make_term(section, compute_softened)


def compute_softened(outputs: Outputs, batch: Batch, answer: Outputs, *, temperature: float) -> Tensor:
    """The term on what student and teacher say of a batch; the labels do not matter."""
    return compute_kd(outputs.logits, answer.logits, temperature)


def compute_kd(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(teacher || student) of logits (B, C) at temperature T > 0; a scalar, computed in fp32.

    The teacher's logits are data: no gradient reaches them.
    """
    _check(student_logits, teacher_logits, temperature)
    # fp32 before the division: half precision loses the small differences that T leaves. Logarithms on both sides: the
    # logarithm of a softmax is -inf for a confident student. "batchmean" is the formula; "mean" is 1 / C of it.
    log_student = F.log_softmax(student_logits.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def _check(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise ValueError(f"the distillation temperature must be a finite number > 0, got {temperature}")
    student, teacher = tuple(student_logits.shape), tuple(teacher_logits.shape)
    if student != teacher:
        raise ValueError(
            f"teacher and student must answer the same classes for the same images: logits (B, C), "
            f"got student {student} and teacher {teacher}"
        )
    if len(student) != 2 or student[0] == 0:
        raise ValueError(f"distillation needs logits (B, C) with B >= 1, got {student}")
    if student[1] < 2:
        raise ValueError(
            f"distillation over classes cannot teach a head of {student[1]} output: its softmax is always 1 and the "
            "gradient 0; use a head of two classes"
        )
