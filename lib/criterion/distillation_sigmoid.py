"""The soft-label term for one logit: what `distillation` is for classes.

    KD = T^2 * mean over the batch of KL(Bernoulli(sigmoid(m_t / T)) || Bernoulli(sigmoid(m_s / T)))

m is z1 - z0, or the only logit of a head of one output; with two outputs it equals the divergence over both classes.
So a teacher of one output can teach a student of two, and the other way round. Legend: B images, T temperature.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from lib.config.sections import TermSection
from lib.criterion.margin import compute_margin
from lib.criterion.section import Shapes, check_outputs, make_term
from lib.criterion.weighted_sum import WeightedTerm
from lib.types import Batch, Outputs


def build(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """The term of this section. Raises UserError for a head of more than two outputs."""
    check_outputs(section, shapes, most=2, why="tells two classes apart and no more")
    return make_term(section, _compute)


def _compute(outputs: Outputs, batch: Batch, answer: Outputs, *, temperature: float) -> Tensor:
    return compute_kd_sigmoid(outputs.logits, answer.logits, temperature)


def compute_kd_sigmoid(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(teacher || student) of the margins of logits (B, 1) or (B, 2) at T > 0; a scalar, computed in fp32.

    The teacher's logits are data: no gradient reaches them. Raises ValueError for other shapes and temperatures.
    """
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise ValueError(f"the distillation temperature must be a finite number > 0, got {temperature}")
    student, teacher = compute_margin(student_logits), compute_margin(teacher_logits.detach())
    if student.shape != teacher.shape:
        raise ValueError(
            f"teacher and student must answer for the same images, got logits of "
            f"student {tuple(student_logits.shape)} and teacher {tuple(teacher_logits.shape)}"
        )
    student, teacher = student / temperature, teacher / temperature
    # Logarithms of both probabilities, fake and real, never of 1 - p: finite however sure a model is.
    divergence = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    divergence = divergence + (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return temperature**2 * divergence.mean()
