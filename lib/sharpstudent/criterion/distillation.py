"""Loss terms with soft labels: the student learns from the logits of a teacher, or of its own averaged weights.

Legend: B rows, C classes, T temperature, t teacher, s student.

Over classes (Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2). The factor T^2
keeps the size of the gradient when T changes:

    KD = T^2 * sum_c p_t(c) (log p_t(c) - log p_s(c)),   p = softmax(logits / T)

With `standardise`, each row of logits is first brought to mean 0 and deviation 1 (Sun et al. 2024, "Logit
Standardization in Knowledge Distillation", equation 7): the student then learns the order and the relative distances of
the teacher's logits, and need not match their size.

Decoupled (Zhao et al. 2022, "Decoupled Knowledge Distillation", equation 7), with the class y of the label, p(y) and
1 - p(y) as two classes, and p^ as the distribution over the classes other than y. With a = 1 and b = 1 - p_t(y) it
would be KD:

    DKD = T^2 * (a KL([p_t(y), 1 - p_t(y)] || [p_s(y), 1 - p_s(y)]) + b KL(p^_t || p^_s))

For one logit, with m = z1 - z0 or the only logit. With two outputs it equals the divergence over both classes, so a
teacher of one output can teach a student of two, and the other way round:

    KD = T^2 * KL(Bernoulli(sigmoid(m_t / T)) || Bernoulli(sigmoid(m_s / T)))

Self-distillation takes the student's own averaged weights for the teacher: they are usually the better model
(Tarvainen, Valpola 2017, "Mean teachers are better role models", equation 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sharpstudent.config.run_config import TermSection
from sharpstudent.criterion.classification import compute_margin
from sharpstudent.criterion.section import Shapes, check_outputs, make_teacher_term, take_choice
from sharpstudent.criterion.weighted_sum import WeightedTerm

SMALLEST_VARIANCE = 1e-14  # added to that of a row of logits before it divides them


def build_distillation(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `kd`.

    Raises:
        UserError: For a head of one output, and of two with `standardise`.
    """
    is_standardised = take_choice(section, "standardise") == "yes"
    if take_choice(section, "over") == "pixels":
        compute = compute_kd_over_pixels
    else:
        compute = compute_kd
        check_outputs(section, shapes, least=2, why="the softmax of one output is always 1, and its gradient 0")
        _check_standardised(section, shapes)
    return make_teacher_term(section, shapes, _standardising(compute) if is_standardised else compute)


def _check_standardised(section: TermSection, shapes: Shapes) -> None:
    if take_choice(section, "standardise") == "yes":
        why = "with two outputs, standardised logits are always 0.71 and -0.71, whose order alone has no gradient"
        check_outputs(section, shapes, least=3, why=why)


def _standardising(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a loss of standardised outputs of a loss of outputs."""

    def compute_standardised(student: Tensor, teacher: Tensor, *others: Tensor, **settings: float) -> Tensor:
        return compute(standardise(student), standardise(teacher), *others, **settings)

    return compute_standardised


def standardise(logits: Tensor) -> Tensor:
    """Bring each row of logits (B, ...) to mean 0 and deviation 1, in fp32; a row of equal values to zeros.

    The deviation is that of a sample (divisor n - 1), as in the code of the paper's authors. Returns (B, values a row).
    """
    flat = logits.float().flatten(1)
    # rsqrt of a variance above 0: the derivative of a deviation of 0 is infinite.
    return (flat - flat.mean(1, keepdim=True)) * (flat.var(1, keepdim=True) + SMALLEST_VARIANCE).rsqrt()


def compute_kd_over_pixels(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute `compute_kd` for maps, where the softmax is over the pixels of a map.

    Args:
        student: Maps of logits (B, H, W) or (B, 1, H, W).
        teacher: Maps with the same number of pixels. No gradient reaches them.
        temperature: T > 0.

    Returns:
        The loss of each row (B,).
    """
    return compute_kd(student.flatten(1), teacher.flatten(1), temperature)


def compute_kd(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Compute T^2 * KL(teacher || student), in fp32.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C). No gradient reaches them.
        temperature: T > 0.

    Returns:
        The loss of each row (B,).

    Raises:
        ValueError: For other shapes or temperatures.
    """
    _check(student_logits, teacher_logits, temperature)
    # fp32 before the division: half precision loses the small differences that remain after division by T. log_softmax
    # and not softmax().log(), which is -inf for a confident student.
    log_student = F.log_softmax(student_logits.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)


def _check(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise ValueError(f"the distillation temperature must be a finite number > 0, got {temperature}")
    student, teacher = tuple(student_logits.shape), tuple(teacher_logits.shape)
    if student != teacher:
        raise ValueError(
            f"teacher and student must have logits (B, C) of the same classes for the same rows, "
            f"got student {student} and teacher {teacher}"
        )
    if len(student) != 2 or student[0] == 0:
        raise ValueError(f"distillation needs logits (B, C) with B >= 1, got {student}")
    if student[1] < 2:
        raise ValueError(
            f"distillation over classes cannot teach a head of {student[1]} output: its softmax is always 1 and the "
            "gradient 0; use a head of two classes"
        )


def build_decoupled(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `dkd`.

    Raises:
        UserError: For a head of two outputs or fewer.
    """
    why = "beside the label's class two outputs leave one class, which always has the whole rest: the part is 0 there"
    check_outputs(section, shapes, least=3, why=why)
    is_standardised = take_choice(section, "standardise") == "yes"
    compute = _standardising(compute_dkd) if is_standardised else compute_dkd
    return make_teacher_term(section, shapes, compute, target="label")


def compute_dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float,
    target_weight: float,
    non_target_weight: float,
) -> Tensor:
    """Compute decoupled distillation, in fp32.

    Args:
        student_logits: (B, C), C >= 3.
        teacher_logits: (B, C). No gradient reaches them.
        labels: Class indices (B,) int64.
        temperature: T > 0.
        target_weight: Weight of the part on the label's class, a above.
        non_target_weight: Weight of the part on the other classes, b above.

    Returns:
        The loss of each row (B,).

    Raises:
        ValueError: For other shapes or temperatures.
    """
    _check(student_logits, teacher_logits, temperature)
    if labels.shape != student_logits.shape[:1] or student_logits.shape[1] < 3:
        shapes = f"{tuple(student_logits.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"dkd needs logits (B, C) with C >= 3 and labels (B,), got {shapes}")
    is_label = torch.arange(student_logits.shape[1], device=labels.device) == labels[:, None]
    (log_target_s, log_others_s), (log_target_t, log_others_t) = (
        _split_classes(logits.float() / temperature, is_label) for logits in (student_logits, teacher_logits.detach())
    )
    target, others = (
        F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1)
        for ours, theirs in ((log_target_s, log_target_t), (log_others_s, log_others_t))
    )
    return temperature**2 * (target_weight * target + non_target_weight * others)


def _split_classes(logits: Tensor, is_label: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log p of the label's class against all others (B, 2), and log p among those others (B, C - 1)."""
    log_p = F.log_softmax(logits, dim=1)
    others = log_p[~is_label].view(len(log_p), -1)
    pair = torch.stack([log_p[is_label], others.logsumexp(1)], 1)
    return pair, F.log_softmax(others, dim=1)


def build_sigmoid_distillation(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `kd_sigmoid`.

    Raises:
        UserError: For a head of more than two outputs.
    """
    check_outputs(section, shapes, most=2, why="works with two classes only")
    return make_teacher_term(section, shapes, compute_kd_sigmoid)


def compute_kd_sigmoid(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Compute T^2 * KL(teacher || student) of the margins, in fp32.

    Args:
        student_logits: (B, 1) or (B, 2).
        teacher_logits: (B, 1) or (B, 2). No gradient reaches them.
        temperature: T > 0.

    Returns:
        The loss of each row (B,).

    Raises:
        ValueError: For other shapes or temperatures.
    """
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise ValueError(f"the distillation temperature must be a finite number > 0, got {temperature}")
    student, teacher = compute_margin(student_logits), compute_margin(teacher_logits.detach())
    if student.shape != teacher.shape:
        raise ValueError(
            f"teacher and student must have logits for the same rows, got "
            f"student {tuple(student_logits.shape)} and teacher {tuple(teacher_logits.shape)}"
        )
    student, teacher = student / temperature, teacher / temperature
    # logsigmoid of m and of -m, and never log(1 - p): the values stay finite for confident models.
    divergence = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    divergence = divergence + (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return temperature**2 * divergence


def build_self_distillation(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `self`.

    Raises:
        UserError: For a head of one output.
    """
    check_outputs(section, shapes, least=2, why="the softmax of one output is always 1, and its gradient 0")
    return make_teacher_term(section, shapes, compute_kd)
