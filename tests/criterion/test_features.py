"""Features, embeddings and attention: the distances, the projection, and what cannot be matched."""

import numpy as np
import pytest
import torch
from made_terms import (
    HALF,
    START,
    build_one,
    make_batch,
    make_section,
    make_shapes,
    mean_of,
    take_gradient,
    to_float64,
)
from numpy.typing import NDArray
from sharpstudent.core.errors import UserError
from sharpstudent.criterion import features
from sharpstudent.criterion.build import build_criterion, find_layers
from sharpstudent.criterion.features import Distance
from sharpstudent.criterion.section import Shapes
from sharpstudent.criterion.weighted_sum import WeightedSum, WeightedTerm
from torch import Tensor, nn

compute_distance = mean_of(features.compute_distance)
DISTANCES: list[Distance] = ["mse", "cosine"]
MAPS = [(4, 5, 3, 3), (4, 7, 5)]
LAYERS = {"student_layer": "blocks.1", "teacher_layer": "stages.2"}


def draw_map(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_layers(student: tuple[int, ...], teacher: tuple[int, ...]) -> Shapes:
    return make_shapes(2, student={"blocks.1": student}, teacher={"stages.2": teacher})


def build_features(student: tuple[int, ...], teacher: tuple[int, ...], distance: Distance = "mse") -> WeightedTerm:
    return build_one("features", make_layers(student, teacher), distance=distance, **LAYERS)


def compute_float64(student: Tensor, teacher: Tensor, distance: Distance) -> NDArray[np.float64]:
    """Of each row (B,)."""
    s, t = to_float64(student), to_float64(teacher)
    if distance == "mse":
        return ((s - t) ** 2).reshape(len(s), -1).mean(1)
    axis = 1 if s.ndim == 4 else 2
    lengths = np.linalg.norm(s, axis=axis) * np.linalg.norm(t, axis=axis)
    return (1.0 - (s * t).sum(axis) / lengths).reshape(len(s), -1).mean(1)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("shape", MAPS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_it_equals_numpy_in_float64(shape: tuple[int, ...], distance: Distance, seed: int) -> None:
    student, teacher = draw_map(shape, seed), draw_map(shape, seed + 10)
    expected = compute_float64(student, teacher, distance)
    assert compute_distance(student, teacher, distance).item() == pytest.approx(float(np.mean(expected)), rel=2e-6)
    rows = features.compute_distance(student, teacher, distance)
    np.testing.assert_allclose(to_float64(rows), expected, rtol=2e-6)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_it_is_zero_between_equal_maps_and_positive_between_others(shape: tuple[int, ...], distance: Distance) -> None:
    one = draw_map(shape)
    assert features.compute_distance(one, one.clone(), distance).tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    assert features.compute_distance(one, draw_map(shape, 1), distance).min().item() > 0.1


def test_the_cosine_ignores_lengths_and_the_squares_do_not() -> None:
    student, teacher = draw_map(MAPS[0]), draw_map(MAPS[0], 1)
    torch.testing.assert_close(
        compute_distance(3.0 * student, teacher, "cosine"), compute_distance(student, teacher, "cosine")
    )
    assert compute_distance(3.0 * student, teacher, "mse") > compute_distance(student, teacher, "mse")


@pytest.mark.parametrize("grid", [6, 12])
def test_a_finer_grid_of_the_teacher_is_averaged_down_to_the_students(grid: int) -> None:
    coarse, fine = draw_map((4, 5, 3, 3)), draw_map((4, 5, grid, grid), 1)
    cells = to_float64(fine).reshape(4, 5, 3, grid // 3, 3, grid // 3).mean((3, 5))
    expected = float(np.mean((to_float64(coarse) - cells) ** 2))
    assert compute_distance(coarse, fine, "mse").item() == pytest.approx(expected, rel=1e-5)


def test_a_coarser_grid_of_the_teacher_is_spread_over_the_students() -> None:
    coarse = draw_map((2, 5, 3, 3))
    spread = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert compute_distance(spread, coarse, "mse").item() == 0.0


@pytest.mark.parametrize("distance", DISTANCES)
def test_no_gradient_reaches_the_teachers_map(distance: Distance) -> None:
    student, teacher = draw_map(MAPS[0]).requires_grad_(), draw_map(MAPS[0], 1).requires_grad_()
    compute_distance(student, teacher, distance).backward()
    assert student.grad is not None
    assert student.grad.norm() > 1e-3
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("distance", DISTANCES)
def test_half_precision_maps_are_projected_and_compared_in_fp32(distance: Distance, dtype: torch.dtype) -> None:
    term = build_features((2, 3, 4, 4), (2, 5, 8, 8), distance)
    maps = [draw_map((2, 3, 4, 4)).to(dtype), draw_map((2, 5, 8, 8), 1).to(dtype)]
    values = [
        term.compute({"features/blocks.1": s}, make_batch(2), {"features/stages.2": t})
        for s, t in (maps, [m.float() for m in maps])
    ]
    assert values[0].dtype == torch.float32
    assert values[0].shape == (2,)
    assert torch.equal(*values)


@pytest.mark.parametrize("distance", DISTANCES)
def test_vectors_of_zeros_give_finite_gradients(distance: Distance) -> None:
    student = torch.zeros(MAPS[0], requires_grad=True)
    for teacher in (torch.zeros(MAPS[0]), draw_map(MAPS[0])):
        value = compute_distance(student, teacher, distance)
        assert torch.isfinite(value)
        assert torch.isfinite(take_gradient(value, student)).all()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("student", "teacher", "kind"),
    [
        ((2, 3, 4, 4), (2, 5, 4, 4), nn.Conv2d),
        ((2, 3, 4, 4), (2, 5, 8, 8), nn.Conv2d),
        ((2, 6, 3), (2, 6, 5), nn.Linear),
    ],
    ids=str,
)
def test_student_and_projection_are_reached_by_the_gradient(
    student: tuple[int, ...], teacher: tuple[int, ...], kind: type, distance: Distance
) -> None:
    term = build_features(student, teacher, distance)
    assert isinstance(term.module, kind)
    ours, theirs = draw_map(student).requires_grad_(), draw_map(teacher, 1)
    rows = term.compute({"features/blocks.1": ours}, make_batch(2), {"features/stages.2": theirs})
    rows.mean().backward()
    assert ours.grad is not None
    assert ours.grad.norm() > 1e-3
    assert all(p.grad is not None and p.grad.norm() > 1e-4 for p in term.module.parameters())


def test_a_projection_of_one_layer_learns_to_match_the_teacher() -> None:
    term = build_features((2, 3, 4, 4), (2, 5, 4, 4))
    ours = draw_map((8, 3, 4, 4))
    theirs = torch.einsum("dc,bchw->bdhw", draw_map((5, 3), 7), ours) + 0.5  # what a 1x1 convolution can say
    assert term.module is not None
    optimizer = torch.optim.Adam(term.module.parameters(), lr=0.05)
    for _ in range(400):
        rows = term.compute(
            {"features/blocks.1": ours},
            make_batch(),
            {"features/stages.2": theirs},
        )
        value = rows.mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert value.item() < 1e-4


def test_the_projection_belongs_to_the_criterion_by_the_name_of_its_term() -> None:
    sections = [make_section("hard"), make_section("features", name="hint", **LAYERS)]
    criterion = build_criterion(sections, make_layers((2, 3, 4, 4), (2, 5, 8, 8)))
    assert list(criterion.module.state_dict()) == ["hint.weight", "hint.bias"]
    assert criterion.module["hint"].weight.shape == (5, 3, 1, 1)
    assert (criterion.student_layers, criterion.teacher_layers) == (("blocks.1",), ("stages.2",))
    assert criterion.sources == {"teacher"}
    assert list(criterion.describe(START)) == ["hard/weight", "hint/weight"]


def test_the_first_weights_follow_the_seed_and_the_random_state_is_left_alone() -> None:
    states, weights = [], []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        module = build_features((2, 3, 4, 4), (2, 5, 8, 8)).module
        states.append(torch.equal(before, torch.get_rng_state()))
        assert isinstance(module, nn.Conv2d)
        weights.append(module.weight.detach().clone())
    assert all(states)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_layers_to_hook_are_found_in_the_config_each_once() -> None:
    sections = [
        make_section("hard"),
        make_section("features", **LAYERS),
        make_section("features", name="deep", student_layer="blocks.3", teacher_layer="stages.2"),
    ]
    layers = find_layers(sections)
    assert (layers.student, layers.teacher) == (("blocks.1", "blocks.3"), ("stages.2",))


@pytest.mark.parametrize(
    ("student", "teacher", "reason"),
    [
        ((2, 3, 4, 4), (2, 6, 5), "one is a grid and one is a list of tokens"),
        ((2, 6, 3), (2, 7, 5), "different numbers of tokens"),
        ((2, 8), (2, 5, 4, 4), "that of the student gives no feature map"),
        ((2, 3, 4, 4), (2,), "that of the teacher gives no feature map"),
        ((8, 6, 3), (2, 6, 5), "that of the student does not give one map an image"),
        ((2, 3, 4, 4), (2, 7, 7, 96), "that of the teacher has its channels last"),
    ],
    ids=str,
)
def test_layers_that_cannot_be_matched_are_refused_by_name_and_shape(
    student: tuple[int, ...], teacher: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(UserError) as refused:
        build_features(student, teacher)
    message = refused.value.as_text()
    assert all(part in message for part in (reason, f"blocks.1 {student}", f"stages.2 {teacher}"))


@pytest.mark.parametrize(
    ("one", "two"), [((2, 3, 4, 4), (2, 4, 4, 4)), ((2, 3, 4), (2, 3, 4, 4)), ((2, 3), (2, 3))], ids=str
)
def test_maps_that_do_not_fit_are_refused(one: tuple[int, ...], two: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="maps"):
        compute_distance(torch.zeros(one), torch.zeros(two), "mse")


@pytest.mark.parametrize("distance", DISTANCES)
def test_an_embedding_is_compared_with_that_of_the_teacher_after_its_projection(distance: Distance) -> None:
    shapes = Shapes(student={"logits": (2, 3), "vector": (2, 4)}, teacher={"logits": (2, 3), "features/pool": (2, 6)})
    term = build_one("embedding", shapes, on="vector", of="features/pool", distance=distance)
    assert (term.student_layers, term.teacher_layers) == ((), ("pool",))
    assert isinstance(term.module, nn.Linear)
    ours, theirs = draw_map((8, 4)).requires_grad_(), draw_map((8, 6), 1)
    weight, bias = (to_float64(p) for p in term.module.parameters())
    projected = to_float64(ours) @ weight.T + bias
    expected = compute_float64(torch.tensor(projected)[:, None], theirs[:, None], distance)
    rows = term.compute({"vector": ours}, make_batch(), {"features/pool": theirs})
    np.testing.assert_allclose(to_float64(rows), expected, rtol=1e-5)
    rows.mean().backward()
    assert ours.grad is not None
    assert ours.grad.norm() > 1e-3
    assert all(p.grad is not None and p.grad.norm() > 1e-4 for p in term.module.parameters())


def test_without_a_projection_mse_on_logits_is_that_of_torch_and_sizes_must_match() -> None:
    """torch's mean over rows and values is what timm's FeatureDistillationTask takes, too."""
    term = build_one("embedding", make_shapes(5), projection="none")
    ours, theirs = draw_map((8, 5)), draw_map((8, 5), 1)
    value = WeightedSum([term])({"logits": ours}, make_batch(), {"teacher": {"logits": theirs}}, START)
    torch.testing.assert_close(value.total, nn.functional.mse_loss(ours, theirs))
    other = Shapes(student={"logits": (2, 5), "vector": (2, 4)}, teacher={"logits": (2, 5)})
    with pytest.raises(UserError, match="different sizes"):
        build_one("embedding", other, on="vector", of="logits", projection="none")


def test_layers_that_outputs_are_named_after_are_hooked_in_the_model_that_the_term_reads() -> None:
    sections = [
        make_section("embedding", on="features/pool"),
        make_section("supcon", on="features/neck"),
        make_section("rkd", on="vector", of="features/deep"),
    ]
    layers = find_layers(sections)
    assert (layers.student, layers.teacher) == (("pool", "neck"), ("pool", "deep"))


@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_attention_equals_numpy_in_float64_and_ignores_the_size_of_activations(shape: tuple[int, ...]) -> None:
    student, teacher = draw_map(shape), draw_map((shape[0], 9, *shape[2:]) if len(shape) == 4 else (*shape[:2], 9), 1)
    sides = []
    for maps in (student, teacher):
        q = (to_float64(maps) ** 2).mean(1 if len(shape) == 4 else 2).reshape(shape[0], -1)
        sides.append(q / np.linalg.norm(q, axis=1, keepdims=True))
    expected = ((sides[0] - sides[1]) ** 2).sum(1)
    np.testing.assert_allclose(to_float64(features.compute_attention(student, teacher)), expected, rtol=1e-5)
    torch.testing.assert_close(
        features.compute_attention(-3.0 * student, 0.1 * teacher), features.compute_attention(student, teacher)
    )
    assert features.compute_attention(student, 2.0 * student).max().item() < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_attention_is_finite_for_zeros_and_in_half_precision_and_resizes_the_teachers(dtype: torch.dtype) -> None:
    student = torch.cat([torch.zeros(1, 5, 3, 3), draw_map((1, 5, 3, 3))]).to(dtype).requires_grad_()
    teacher = draw_map((2, 7, 6, 6), 1).to(dtype).requires_grad_()
    rows = features.compute_attention(student, teacher)
    assert rows.dtype == torch.float32
    assert torch.isfinite(take_gradient(rows.sum(), student)).all()
    cells = (to_float64(teacher) ** 2).mean(1).reshape(2, 3, 2, 3, 2).mean((2, 4)).reshape(2, -1)
    q = (to_float64(student[1:]) ** 2).mean(1).reshape(1, -1)
    expected = ((q / np.linalg.norm(q) - cells[1:] / np.linalg.norm(cells[1:])) ** 2).sum()
    assert rows[1].item() == pytest.approx(float(expected), rel=1e-4)


def test_attention_on_one_place_is_refused_and_a_term_of_maps_says_what_compares_vectors() -> None:
    with pytest.raises(UserError, match="map of one place"):
        build_one("attention", make_layers((2, 3, 1, 1), (2, 5, 4, 4)), **LAYERS)
    build_one("attention", make_layers((2, 3, 2, 2), (2, 5, 4, 4)), **LAYERS)
    with pytest.raises(UserError, match="embedding compares vectors"):
        build_features((2, 3), (2, 5, 4, 4))


@pytest.mark.parametrize(
    ("ours", "theirs"), [((2, 17, 5), (2, 7, 8, 8)), ((2, 16, 5), (2, 65, 3)), ((2, 4, 4, 4), (2, 16, 3))], ids=str
)
def test_attention_of_tokens_is_laid_out_as_a_grid_without_the_class_token(
    ours: tuple[int, ...], theirs: tuple[int, ...]
) -> None:
    student, teacher = draw_map(ours), draw_map(theirs, 1)
    grids = []
    for maps in (student, teacher):
        if maps.ndim == 3:
            side = int(maps.shape[1] ** 0.5)
            maps = maps[:, maps.shape[1] - side * side :].transpose(1, 2).reshape(2, -1, side, side)
        grids.append(maps)
    torch.testing.assert_close(features.compute_attention(student, teacher), features.compute_attention(*grids))
    build_one("attention", make_layers(ours, theirs), **LAYERS)


def test_attention_of_tokens_that_are_no_grid_is_refused() -> None:
    with pytest.raises(UserError, match="list of tokens"):
        build_one("attention", make_layers((2, 15, 3), (2, 5, 4, 4)), **LAYERS)
    with pytest.raises(ValueError, match="do not match"):
        features.compute_attention(torch.zeros(2, 15, 3), torch.zeros(2, 5, 4, 4))


def test_clause_sparsity_is_the_mean_size_of_clauses_or_of_any_output_and_has_its_gradient() -> None:
    shapes = Shapes(student={"logits": (2, 3), "clauses": (2, 4), "aux.gates": (2, 2)})
    values = torch.tensor([[0.0, 1.0, 0.5, 0.5], [2.0, -2.0, 0.0, 0.0]], requires_grad=True)
    outputs = {"logits": torch.zeros(2, 3), "clauses": values, "aux.gates": torch.ones(2, 2)}
    rows = build_one("clause_sparsity", shapes).compute(outputs, make_batch(), None)
    assert rows.tolist() == [0.5, 1.0]
    assert take_gradient(rows.sum(), values).tolist() == [[0.0, 0.25, 0.25, 0.25], [0.25, -0.25, 0.0, 0.0]]
    assert build_one("clause_sparsity", shapes, on="aux.*").compute(outputs, make_batch(), None).tolist() == [1.0, 1.0]
    with pytest.raises(UserError, match="clauses"):
        build_one("clause_sparsity", make_shapes(3))
