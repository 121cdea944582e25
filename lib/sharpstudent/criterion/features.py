"""Terms on what the models compute inside: feature maps, embeddings, where a map is large, how large an output is.

Feature distillation (Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", equation 3).

A learnable projection P maps a feature map f_s of the student to the channels of the teacher. The loss is its distance
from a map f_t of the teacher:

    mse:    mean over places and channels of (P f_s - f_t)^2
    cosine: mean over places of 1 - cos(P f_s, f_t), the angle over channels

P is a 1x1 convolution between maps (B, C, h, w), and a linear layer between token maps (B, N, D). It is trained with
the student and is not part of it. An embedding, or any other output, is one vector of D values in each row, and P a
linear layer. Without P, and with `mse` on logits, it is the regression of the teacher's logits (Ba, Caruana 2014, "Do
Deep Nets Really Need to be Deep?", equation 1).

Attention transfer (Zagoruyko, Komodakis 2017, "Paying More Attention to Attention", equation 2 with p = 2, squared).
The attention of a map at a place is the mean of the squares over its channels:

    AT = ||q_s / ||q_s|| - q_t / ||q_t|| ||^2,   q = mean over channels of f^2, as a vector over the places

Sparsity is the mean absolute value of an output in each row: an L1 penalty on activations, not on weights.

Legend: B rows, C or D channels, h x w grid, N tokens.
"""

from __future__ import annotations

import math
from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from sharpstudent.config.run_config import TermSection
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import FEATURES, Batch, Outputs
from sharpstudent.criterion.section import (
    Shapes,
    check_output,
    find_layer,
    find_matches,
    find_teacher_output,
    make_teacher_term,
    make_term,
    name_term,
    take_choice,
)
from sharpstudent.criterion.weighted_sum import WeightedTerm

Distance = Literal["mse", "cosine"]
SMALLEST_LENGTH = 1e-6  # the smallest vector length in the cosine: below it, the gradient would grow without bound


def build_features(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `features`.

    Args:
        section: The term in the config, with the names of the two layers.
        shapes: Shapes of the models' outputs, these layers among them.

    Returns:
        The term, with its projection.

    Raises:
        UserError: For two layers that cannot be compared.
    """
    ours, theirs = take_choice(section, "student_layer"), take_choice(section, "teacher_layer")
    distance = cast(Distance, take_choice(section, "distance"))
    projection = _build_projection(section, shapes, ours, theirs)

    def compute(outputs: Outputs, batch: Batch, teacher_outputs: Outputs) -> Tensor:
        # Under autocast the maps are in half precision; the projection is part of the loss, which is in fp32.
        projected = projection(outputs[f"{FEATURES}{ours}"].float())
        return compute_distance(projected, teacher_outputs[f"{FEATURES}{theirs}"], distance)

    return make_term(section, compute, module=projection, student_layers=[ours], teacher_layers=[theirs])


def build_embedding(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `embedding`.

    Args:
        section: The term in the config.
        shapes: Shapes of the models' outputs.

    Returns:
        The term, with its projection unless that is `none`.

    Raises:
        UserError: For an output that a model does not give, and for outputs of different sizes without a projection.
    """
    on, of = check_output(section, shapes), find_teacher_output(section, shapes)
    sizes = {math.prod(shapes.student[name][1:]) for name in find_matches(on, shapes.student)}
    size, wanted = sizes.pop(), math.prod(shapes.teacher[of][1:])
    distance = cast(Distance, take_choice(section, "distance"))
    is_learned = take_choice(section, "projection") == "learned"
    if sizes or (not is_learned and size != wanted):
        got = f"student {on} {sorted({size, *sizes})}\nteacher {of} {wanted}"
        what = "compares outputs of different sizes" if not sizes else "has one projection for outputs of several sizes"
        remedy = 'name other outputs in "on" and "of"' + ("" if is_learned else ', or "projection": "learned"')
        raise UserError.about(name_term(section), what, expected="one size", got=got, remedy=remedy)
    projection = nn.Linear(size, wanted) if is_learned else None

    def compute(student: Tensor, teacher: Tensor) -> Tensor:
        vectors = student.float().flatten(1)
        return compute_vector_distance(vectors if projection is None else projection(vectors), teacher, distance)

    return make_teacher_term(section, shapes, compute, module=projection)


def compute_vector_distance(projected: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    """Compute the distance of vectors, in fp32; it is 0 for equal ones.

    Args:
        projected: The student's output after the projection, (B, D).
        teacher: That of the teacher, D values in each row. No gradient reaches it.
        distance: `mse` or `cosine`.

    Returns:
        The distance of each row (B,).

    Raises:
        ValueError: For different rows or sizes.
    """
    teacher = teacher.detach().float().flatten(1)
    if projected.shape != teacher.shape:
        raise ValueError(f"vectors do not match: {tuple(projected.shape)} and {tuple(teacher.shape)}")
    return compute_distance(projected[:, None], teacher[:, None], distance)  # a list of one token


def build_attention(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `attention`.

    Args:
        section: The term in the config, with the names of the two layers.
        shapes: Shapes of the models' outputs, these layers among them.

    Returns:
        The term.

    Raises:
        UserError: For two layers that cannot be compared, and for a map of one place.
    """
    ours, theirs = take_choice(section, "student_layer"), take_choice(section, "teacher_layer")
    student, _ = _check_maps(section, shapes, ours, theirs, as_grids=True)
    places = math.prod(student[2:]) if len(student) == 4 else student[1]
    if places < 2:
        raise UserError.about(
            name_term(section),
            "reads a map of one place, on which all attention lies whatever the student does: it cannot teach",
            expected="2 or more places",
            got=f"student {ours} {student}",
            remedy="choose an earlier layer; --list-layers shows them",
        )

    def compute(outputs: Outputs, batch: Batch, teacher_outputs: Outputs) -> Tensor:
        return compute_attention(outputs[f"{FEATURES}{ours}"], teacher_outputs[f"{FEATURES}{theirs}"])

    return make_term(section, compute, student_layers=[ours], teacher_layers=[theirs])


def build_clause_sparsity(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `clause_sparsity`: of the output `clauses`, unless the section names another one or several.

    Args:
        section: The term in the config.
        shapes: Shapes of the models' outputs.

    Returns:
        The term.

    Raises:
        UserError: For a student that gives no such output.
    """
    on = check_output(section, shapes, "clauses")

    def compute(outputs: Outputs, batch: Batch, teacher_outputs: Outputs | None) -> Tensor:
        sizes = [compute_mean_size(outputs[name]) for name in find_matches(on, outputs)]
        return sum(sizes[1:], sizes[0]) / len(sizes)

    return make_term(section, compute, student_layers=find_layer(on))


def compute_mean_size(values: Tensor) -> Tensor:
    """Compute the mean absolute value of each row (B,) of an output (B, ...), in fp32."""
    return values.float().abs().flatten(1).mean(1)


def compute_attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute the squared distance of two normalised attention maps, in fp32; it is 0 where they are equal.

    The attention of a teacher with another grid is resized to the student's by adaptive average pooling. Where one
    side is a list of tokens, or the lists differ, tokens stand for the places of a square grid, row by row; a class
    token before them is left out.

    Args:
        student: A map (B, C, h, w), or tokens (B, N, D).
        teacher: One of any number of channels. No gradient reaches it.

    Returns:
        The distance of each row (B,), 0 to 2.

    Raises:
        ValueError: For something else than maps, for other rows, and for tokens that are no grid.
    """
    shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
    if not {student.ndim, teacher.ndim} <= {3, 4} or len(student) != len(teacher):
        raise ValueError(f"maps must be (B, C, h, w) or (B, N, D), got {shapes}")
    ours, theirs = (maps.float().square().mean(1 if maps.ndim == 4 else 2) for maps in (student, teacher.detach()))
    if ours.shape != theirs.shape:
        if not all(maps.ndim == 3 or _find_side(maps.shape[1]) for maps in (ours, theirs)):
            raise ValueError(f"maps do not match: {shapes}")
        ours, theirs = (maps if maps.ndim == 3 else _lay_out(maps) for maps in (ours, theirs))
        theirs = F.adaptive_avg_pool2d(theirs, (ours.shape[1], ours.shape[2]))
    ours, theirs = (F.normalize(maps.flatten(1), dim=1, eps=SMALLEST_LENGTH) for maps in (ours, theirs))
    return (ours - theirs).square().sum(1)


def _find_side(tokens: int) -> int:
    """Find the side of the square grid that so many tokens stand for, with or without a class token; 0 for none."""
    side = math.isqrt(tokens)
    return side if side * side in (tokens, tokens - 1) else 0


def _lay_out(values: Tensor) -> Tensor:
    """Lay a value for each token (B, N) out as the square grid that the tokens stand for (B, side, side)."""
    side = _find_side(values.shape[1])
    return values[:, -side * side :].unflatten(1, (side, side))


def compute_distance(projected: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    """Compute the distance between two feature maps with the same number of channels, in fp32; it is 0 for equal maps.

    A teacher's map with another grid is resized to the grid of the student's map by adaptive average pooling.

    Args:
        projected: The student's map after the projection, (B, C, h, w) or (B, N, D).
        teacher: The map of the teacher. No gradient reaches it.
        distance: `mse` or `cosine`.

    Returns:
        The distance of each row (B,).

    Raises:
        ValueError: For maps of different kinds, rows, channels or tokens.
    """
    if projected.ndim != teacher.ndim or projected.ndim not in (3, 4):
        raise ValueError(
            f"maps must both be (B, C, h, w) or both (B, N, D), got {tuple(projected.shape)} and {tuple(teacher.shape)}"
        )
    projected, teacher = projected.float(), teacher.detach().float()
    if projected.ndim == 4 and projected.shape[2:] != teacher.shape[2:]:
        teacher = F.adaptive_avg_pool2d(teacher, (projected.shape[2], projected.shape[3]))
    if projected.shape != teacher.shape:
        raise ValueError(f"maps do not match: {tuple(projected.shape)} and {tuple(teacher.shape)}")
    if distance == "mse":
        return F.mse_loss(projected, teacher, reduction="none").flatten(1).mean(1)
    channels = 1 if projected.ndim == 4 else 2
    return 1.0 - F.cosine_similarity(projected, teacher, dim=channels, eps=SMALLEST_LENGTH).flatten(1).mean(1)


def _build_projection(section: TermSection, shapes: Shapes, ours: str, theirs: str) -> nn.Module:
    student, teacher = _check_maps(section, shapes, ours, theirs)
    if len(student) == 4:
        return nn.Conv2d(student[1], teacher[1], kernel_size=1)
    return nn.Linear(student[2], teacher[2])


def _check_maps(
    section: TermSection, shapes: Shapes, ours: str, theirs: str, *, as_grids: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of the maps of two layers; raise UserError for layers that cannot be compared.

    as_grids: Whether lists of tokens that stand for a grid can be compared with other grids.
    """
    student, teacher = shapes.student[f"{FEATURES}{ours}"], shapes.teacher[f"{FEATURES}{theirs}"]
    reason = _explain_misfit(student, teacher, shapes.rows, as_grids)
    if reason is not None:
        raise UserError.about(
            name_term(section),
            f"cannot compare these two layers: {reason}",
            expected="two maps (images, channels, height, width), or two (images, tokens, channels) of as many tokens",
            got=f"student {ours} {student}\nteacher {theirs} {teacher}",
            remedy="choose other layers; --list-layers shows them",
        )
    return student, teacher


def _explain_misfit(student: tuple[int, ...], teacher: tuple[int, ...], images: int, as_grids: bool) -> str | None:
    """Explain why two maps of these shapes cannot be compared; None if they can."""
    for whose, shape in (("student", student), ("teacher", teacher)):
        if len(shape) not in (3, 4):
            vector = "; the term embedding compares vectors" if len(shape) == 2 else ""
            return f"that of the {whose} gives no feature map{vector}"
        if shape[0] != images:  # some attention blocks merge positions into the batch dimension
            return f"that of the {whose} does not give one map an image"
        if len(shape) == 4 and shape[1] == shape[2] != shape[3]:  # pictures are square, and so are their maps
            return f"that of the {whose} has its channels last"
    if as_grids and all(len(shape) == 4 or _find_side(shape[1]) for shape in (student, teacher)):
        return None
    if len(student) != len(teacher):
        return "one is a grid and one is a list of tokens"
    if len(student) == 3 and student[1] != teacher[1]:
        return "they have different numbers of tokens"
    return None
