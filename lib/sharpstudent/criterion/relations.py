"""Loss terms that compare the rows of a batch, or the classes of a row, with each other.

Legend: B rows, C classes, D values a row, T temperature, t teacher, s student, y label. Rows of weight 0 take no part;
all others count alike.

DIST (Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", equations 8 to 10), with p = softmax(z / T)
and the correlation r of Pearson. b weighs the relation between the classes of a row, g that between the rows in a
class:

    DIST = T^2 * (b * mean over rows i of (1 - r(p_s[i, :], p_t[i, :]))
                + g * mean over classes c of (1 - r(p_s[:, c], p_t[:, c])))

Relational distillation (Park et al. 2019, "Relational Knowledge Distillation", equations 5 and 8), with the Huber loss
h (delta 1), distances d that are divided by their mean over the batch, and the cosine cos(i, j, k) of the angle at row
j:

    RKD = a * mean over pairs of h(d_s(i, j) - d_t(i, j)) + b * mean over triples of h(cos_s(i, j, k) - cos_t(i, j, k))

Supervised contrast (Khosla et al. 2020, "Supervised Contrastive Learning", equation 2), with z of length 1 and P(i),
the other rows of i's label; rows that have none are left out. It needs no memory bank: the contrast is within the
batch.

    SupCon = mean over i, and over p in P(i), of -log(exp(z_i z_p / T) / sum over a != i of exp(z_i z_a / T))
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sharpstudent.config.run_config import TermSection
from sharpstudent.core.errors import UserError
from sharpstudent.criterion.section import (
    Shapes,
    check_output,
    check_outputs,
    find_matches,
    is_off,
    make_target_term,
    make_teacher_term,
    name_term,
)
from sharpstudent.criterion.weighted_sum import WeightedTerm

THREE = 3  # rows: with two, the one distance is its own mean, and the correlation of two numbers is 1 or -1
SMALLEST_LENGTH = 1e-8  # of a vector that is divided by its length


def build_dist(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `dist`.

    Raises:
        UserError: For a head of one output, for one of two unless `inter_weight` is 0, and if both weights are 0.
    """
    check_outputs(section, shapes, least=2, why="the softmax of one output is always 1, and its gradient 0")
    _check_parts(section, "inter_weight", "intra_weight")
    if shapes.count_classes(check_output(section, shapes)) < THREE and not is_off(section, "inter_weight"):
        raise UserError.about(
            name_term(section),
            "has a part over the classes of a row, and the correlation of two numbers is always 1 or -1",
            expected="a head of 3 or more outputs, or inter_weight 0",
            got="2 outputs",
            remedy='"inter_weight": 0, which leaves the part over the rows of a batch; or kd',
        )
    return make_teacher_term(section, shapes, compute_dist, least_rows=1 if is_off(section, "intra_weight") else THREE)


def compute_dist(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, inter_weight: float, intra_weight: float
) -> Tensor:
    """Compute DIST of a whole batch, in fp32.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C). No gradient reaches them.
        temperature: T > 0.
        inter_weight: Weight of the relation between classes, b above.
        intra_weight: Weight of the relation between rows, g above.

    Returns:
        A scalar.

    Raises:
        ValueError: For other shapes or temperatures.
    """
    if student_logits.ndim != 2 or student_logits.shape != teacher_logits.shape or not len(student_logits):
        shapes = f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        raise ValueError(f"dist needs logits (B, C) of both models with B >= 1, got {shapes}")
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise ValueError(f"the temperature must be a finite number > 0, got {temperature}")
    student = F.softmax(student_logits.float() / temperature, dim=1)
    teacher = F.softmax(teacher_logits.detach().float() / temperature, dim=1)
    value = student.new_zeros(())
    if inter_weight > 0.0:
        value = value + inter_weight * (1.0 - _correlate(student, teacher, 1).mean())
    if intra_weight > 0.0:
        value = value + intra_weight * (1.0 - _correlate(student, teacher, 0).mean())
    return temperature**2 * value


def _correlate(one: Tensor, other: Tensor, dim: int) -> Tensor:
    """Compute Pearson's correlation along a dimension; 0 where one side is constant."""
    centred = [values - values.mean(dim, keepdim=True) for values in (one, other)]
    return F.cosine_similarity(*centred, dim=dim, eps=SMALLEST_LENGTH)


def build_rkd(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `rkd`.

    Raises:
        UserError: For angles between rows of one value each, and if both weights are 0.
    """
    _check_parts(section, "distance_weight", "angle_weight")
    if not is_off(section, "angle_weight"):
        why = "has a part of angles, and rows of one value lie on a line: their angles are 0 or 180 degrees"
        _check_size(section, shapes, why, '"angle_weight": 0, which leaves the distances; or an output of more values')
    return make_teacher_term(section, shapes, compute_rkd, least_rows=THREE)


def compute_rkd(student: Tensor, teacher: Tensor, distance_weight: float, angle_weight: float) -> Tensor:
    """Compute relational distillation of a whole batch, in fp32.

    The sizes of the rows of both models need not be equal. Memory and time of the angles grow with B^2 D and B^3.

    Args:
        student: (B, ...), B >= 3; the values of a row are flattened.
        teacher: (B, ...). No gradient reaches it.
        distance_weight: Weight of the distances, a above.
        angle_weight: Weight of the angles, b above.

    Returns:
        A scalar.

    Raises:
        ValueError: For different numbers of rows, or fewer than three.
    """
    if len(student) != len(teacher) or len(student) < THREE:
        raise ValueError(f"rkd needs 3 or more rows of both models, got {len(student)} and {len(teacher)}")
    student, teacher = student.float().flatten(1), teacher.detach().float().flatten(1)
    value = student.new_zeros(())
    if distance_weight > 0.0:
        ours, theirs = (_compute_distances(rows) for rows in (student, teacher))
        value = value + distance_weight * F.smooth_l1_loss(ours, theirs)
    if angle_weight > 0.0:
        ours, theirs = (_compute_angles(rows) for rows in (student, teacher))
        triples = len(student) * (len(student) - 1) * (len(student) - 2)
        # What is not a triple of three rows is the same in both models, and adds nothing to the sum.
        value = value + angle_weight * F.smooth_l1_loss(ours, theirs, reduction="sum") / triples
    return value


def _compute_distances(rows: Tensor) -> Tensor:
    """Compute the distance of each pair of rows (B, D), divided by their mean, (B (B - 1) / 2,)."""
    distances = F.pdist(rows)
    return distances / distances.mean().clamp_min(SMALLEST_LENGTH)


def _compute_angles(rows: Tensor) -> Tensor:
    """Compute cos of the angle at row j between the rows i and k, (B, B, B) in the order j, i, k."""
    away = F.normalize(rows[None] - rows[:, None], dim=2, eps=SMALLEST_LENGTH)  # (j, i, D): from j to i
    cosines = away @ away.transpose(1, 2)
    return cosines.masked_fill(torch.eye(len(rows), dtype=torch.bool, device=rows.device), 0.0)  # i = k: no angle


def build_supcon(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `supcon`.

    Raises:
        UserError: For an output of one value a row.
    """
    why = "compares directions, and one value has only two of them"
    _check_size(section, shapes, why, 'an output of more values in "on", such as "features/LAYER" (--list-layers)')
    return make_target_term(section, shapes, compute_supcon, least_rows=THREE)


def compute_supcon(vectors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Compute the supervised contrast of a whole batch, in fp32; 0 where no two rows have the same label.

    Args:
        vectors: (B, ...); the values of a row are flattened.
        labels: (B,).
        temperature: T > 0.

    Returns:
        A scalar.

    Raises:
        ValueError: For other shapes or temperatures.
    """
    if labels.shape != vectors.shape[:1]:
        raise ValueError(f"supcon needs labels (B,), got {tuple(vectors.shape)} and {tuple(labels.shape)}")
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise ValueError(f"the temperature must be a finite number > 0, got {temperature}")
    z = F.normalize(vectors.float().flatten(1), dim=1, eps=SMALLEST_LENGTH)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_p = F.log_softmax((z @ z.T / temperature).masked_fill(itself, -math.inf), dim=1)
    positives = (labels[:, None] == labels[None]) & ~itself
    counts = positives.sum(1)
    sums = -log_p.masked_fill(~positives, 0.0).sum(1) / counts.clamp_min(1)
    return sums.sum() / (counts > 0).sum().clamp_min(1)


def _check_parts(section: TermSection, *parts: str) -> None:
    """Raise UserError where the weights of all parts are 0 in the whole run."""
    if all(is_off(section, part) for part in parts):
        what = f"has no part: {' and '.join(parts)} are both 0"
        raise UserError.about(name_term(section), what, remedy="raise one of them, or leave the term out")


def _check_size(section: TermSection, shapes: Shapes, why: str, remedy: str) -> None:
    """Raise UserError for an output of one value a row."""
    on = check_output(section, shapes)
    smallest = min(math.prod(shapes.student[name][1:]) for name in find_matches(on, shapes.student))
    if smallest < 2:
        raise UserError.about(
            name_term(section), why, expected="2 or more values a row", got=f"{smallest} in {on}", remedy=remedy
        )
