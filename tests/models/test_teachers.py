"""Several teachers as one: the input of each, the order of its classes, and the average of their outputs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Outputs
from sharpstudent.models.forward import run_model
from sharpstudent.models.teachers import FrozenTeacher, TeacherEnsemble, name_layer
from sharpstudent.models.vision import Classifier, PicturePreprocess
from sharpstudent.models.weights import compute_weights_hash
from small_models import OTHER, build_small, state_of
from torch import Tensor, nn
from torch.nn import functional

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Saying(nn.Module):
    """A model that always gives these logits (B, C), and keeps what it was shown, in the form that it expects."""

    def __init__(self, logits: list[list[float]], **form: Any) -> None:
        super().__init__()
        self.preprocess = PicturePreprocess(**form)
        self.logits = torch.tensor(logits)
        self.weight = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(0.5)
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Outputs:
        image = self.preprocess(image)
        self.seen.append(image)
        return {"logits": self.dropout(self.logits)}


ONE, TWO = [[2.0, -1.0], [0.5, 0.0], [-30.0, 90.0]], [[0.0, 4.0], [0.5, 0.0], [25.0, -60.0]]


def make(*logits: list[list[float]], **settings: Any) -> TeacherEnsemble:
    return TeacherEnsemble([FrozenTeacher(Saying(each)) for each in logits], **settings)


def softmax(logits: Any) -> Any:
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=1, keepdims=True)
    return np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)


# --- One teacher ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_one_teacher_gets_the_very_tensor_and_its_outputs_are_unchanged(average: Any) -> None:
    model = build_small(4)
    assert isinstance(model, Classifier)
    alone = FrozenTeacher(copy.deepcopy(model))
    ensemble = TeacherEnsemble([FrozenTeacher(model)], weights=[0.3], average=average)
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, args, given: seen.append(given["image"]), with_kwargs=True)
    assert torch.equal(ensemble(image=IMAGES)["logits"], alone(image=IMAGES)["logits"])
    assert len(seen) == 1
    assert seen[0] is IMAGES


def test_a_teacher_of_the_batchs_own_size_and_order_gets_the_very_tensor_too() -> None:
    saying = Saying(ONE, input_size=32)
    teacher = FrozenTeacher(saying, order=[0, 1])
    assert teacher(image=IMAGES)["logits"] is saying.logits
    assert saying.seen[0] is IMAGES


def test_a_teacher_sees_the_batch_at_its_own_size_and_the_batch_stays_as_it_is() -> None:
    before = IMAGES.clone()
    for size in (48, 20):
        model = Saying(ONE, input_size=size)
        FrozenTeacher(model)(image=IMAGES)
        expected = functional.interpolate(
            before, size=(size, size), mode="bilinear", antialias=True, align_corners=False
        )
        assert torch.equal(model.seen[-1], expected)
    assert torch.equal(IMAGES, before)


def test_a_smaller_input_is_antialiased() -> None:
    """Stripes of one pixel become grey; without antialiasing they would stay stripes or vanish."""
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::2] = 1.0
    small = PicturePreprocess(input_size=8)(stripes)
    assert (small[..., 1:-1] - 0.5).abs().max() < 0.05


def test_a_teacher_sees_its_own_normalisation() -> None:
    model = Saying(ONE, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    FrozenTeacher(model)(image=IMAGES)
    expected = np.stack(
        [(IMAGES[:, i].numpy() - m) / s for i, (m, s) in enumerate([(0.1, 0.5), (0.2, 0.25), (0.3, 2)])], 1
    )
    np.testing.assert_allclose(model.seen[0].numpy(), expected, rtol=1e-6, atol=1e-6)


def test_logits_are_put_into_the_tasks_order_of_classes() -> None:
    three = [[0.1, 0.2, 0.3]]
    # The task's first class is the teacher's third, its second the first, its third the second.
    teacher = FrozenTeacher(Saying(three), order=[2, 0, 1])
    assert torch.equal(teacher(image=IMAGES)["logits"], torch.tensor([[0.3, 0.1, 0.2]]))


def test_calibration_divides_the_logits_and_nothing_else() -> None:
    teacher = FrozenTeacher(Saying([[0.1, 0.2, 0.3]]), order=[2, 0, 1])
    teacher.calibration = 2.5
    assert torch.equal(teacher(image=IMAGES)["logits"], torch.tensor([[0.3, 0.1, 0.2]]) / 2.5)
    teacher.calibration = None
    assert torch.equal(teacher(image=IMAGES)["logits"], torch.tensor([[0.3, 0.1, 0.2]]))
    assert "calibration" not in "".join(teacher.state_dict())


# Every way of this project's libraries to come from maps or tokens to what the head takes in.
POOLING = {
    "test_resnet": 32,
    "test_efficientnet": 32,
    "test_vit": 160,
    "mobilenetv3_small_050": 32,  # widens what it has pooled
    "mobilevitv2_050": 64,
    "efficientnet-b4": 32,
}


@pytest.mark.parametrize("name", POOLING)
def test_logits_are_the_head_of_what_was_pooled(name: str) -> None:
    images = torch.rand(2, 3, POOLING[name], POOLING[name], generator=torch.Generator().manual_seed(1))
    model = build_small(4, name)
    model.preprocess = PicturePreprocess(mean=(0.5,) * 3)
    teacher = FrozenTeacher(model)
    pooled = teacher.embed({"image": images})
    assert pooled.shape == (2, teacher.head.in_features)
    torch.testing.assert_close(teacher.head(pooled), teacher(image=images)["logits"])
    # Replaced, it alone decides, and it is frozen as before.
    weight, bias = torch.zeros(2, pooled.shape[1]), torch.tensor([3.0, -4.0])
    teacher.replace_head(weight, bias)
    assert torch.equal(teacher(image=images)["logits"], bias.expand(2, 2))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert torch.equal(teacher.embed({"image": images}), pooled)


def test_pooling_leaves_no_hook_behind() -> None:
    teacher = FrozenTeacher(build_small(4))
    teacher.embed({"image": IMAGES})
    assert not teacher.head._forward_pre_hooks


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="0 linear layers"):
        _ = FrozenTeacher(Saying(ONE)).head


# --- Several --------------------------------------------------------------------------------------------------------


def test_logits_are_averaged_by_normalised_weights() -> None:
    logits = make(ONE, TWO, weights=[3.0, 1.0])(image=IMAGES)["logits"]
    np.testing.assert_allclose(logits.numpy(), 0.75 * np.array(ONE) + 0.25 * np.array(TWO), rtol=1e-6)
    assert torch.allclose(make(ONE, TWO, weights=[30.0, 10.0])(image=IMAGES)["logits"], logits)


def test_probabilities_are_averaged_and_their_logarithm_is_given() -> None:
    logits = make(ONE, TWO, weights=[3.0, 1.0], average="probabilities")(image=IMAGES)["logits"]
    expected = np.log(0.75 * softmax(ONE) + 0.25 * softmax(TWO))
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(softmax(logits.numpy()), np.exp(expected), rtol=1e-5)
    assert torch.isfinite(
        make(ONE, ONE, average="probabilities")(image=IMAGES)["logits"]
    ).all()  # exp(-120) rounds to 0


def test_two_kinds_of_average_differ_and_agree_where_the_teachers_do() -> None:
    ways = [
        make(ONE, TWO, average=average)(image=IMAGES)["logits"].softmax(1) for average in ("logits", "probabilities")
    ]
    assert not torch.allclose(ways[0][0], ways[1][0], atol=0.01)
    torch.testing.assert_close(ways[0][1], ways[1][1])  # both say the same of the second image


def test_half_precision_outputs_are_averaged_in_full_precision() -> None:
    ensemble = make(ONE, TWO)
    for teacher in ensemble.members:
        teacher.model.logits = teacher.model.logits.to(torch.bfloat16)  # type: ignore[assignment]
    assert ensemble(image=IMAGES)["logits"].dtype == torch.float32


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -2.0]])
def test_weights_must_be_as_many_as_the_teachers_and_above_0(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights above 0"):
        make(ONE, TWO, weights=weights)


# --- Frozen ---------------------------------------------------------------------------------------------------------


def make_real() -> TeacherEnsemble:
    models: list[Any] = [build_small(1), build_small(2, OTHER)]
    models[1].preprocess = PicturePreprocess(input_size=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    return TeacherEnsemble([FrozenTeacher(model) for model in models])


def test_an_ensemble_stays_in_evaluation_mode_without_graph_or_moving_statistics() -> None:
    ensemble = make_real()
    before, state = compute_weights_hash(ensemble), state_of(ensemble)
    for ask in (ensemble.train, lambda: nn.ModuleList([ensemble]).train(), lambda: ensemble.teachers[0].train()):
        ask()
        assert not any(module.training for module in ensemble.modules())
        assert not ensemble(image=IMAGES)["logits"].requires_grad
    assert not any(weight.requires_grad for weight in ensemble.parameters())
    assert compute_weights_hash(ensemble) == before
    assert all(torch.equal(value, state[key]) for key, value in ensemble.state_dict().items())


def test_settings_are_no_weights() -> None:
    ensemble = make_real()
    assert not [key for key in ensemble.state_dict() if "mean" in key.split(".")[2:3] or key.endswith(".std")]
    assert len(ensemble.state_dict()) == sum(len(teacher.model.state_dict()) for teacher in ensemble.members)


def test_settings_move_with_the_teacher_to_another_device() -> None:
    teacher = make_real().members[1].to("meta")
    assert teacher.model.preprocess.mean.device.type == "meta"  # type: ignore[union-attr]


# --- Features -------------------------------------------------------------------------------------------------------


def test_features_of_later_teachers_come_after_their_number() -> None:
    ensemble = make_real()
    ensemble.hook_features(["backbone.layer2", "2.backbone.blocks.1", "2.backbone.blocks.2"])
    outputs = ensemble(image=IMAGES)
    layers = ["backbone.layer2", "2.backbone.blocks.1", "2.backbone.blocks.2"]
    assert list(outputs) == ["logits", *(f"features/{layer}" for layer in layers)]
    second = ensemble.members[1]
    assert torch.equal(outputs["features/2.backbone.blocks.1"], second(image=IMAGES)["features/backbone.blocks.1"])
    assert name_layer(2, "backbone.blocks.1") == "2.backbone.blocks.1"
    ensemble.hook_features([])
    assert list(ensemble(image=IMAGES)) == ["logits"]


def test_a_layer_of_a_teacher_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"3\.backbone\.layer2"):
        make_real().hook_features(["3.backbone.layer2"])


# --- What a teacher reads -------------------------------------------------------------------------------------------


def test_a_teacher_may_read_another_view_of_the_sample() -> None:
    saying, clean = Saying(ONE), 0.5 * IMAGES
    teacher = FrozenTeacher(saying, reads={"image": "image_clean"})
    run_model(teacher, {"image": IMAGES, "image_clean": clean})
    assert saying.seen[0] is clean
    # Beside a teacher that reads what the student reads, each gets its own.
    other = Saying(TWO)
    run_model(TeacherEnsemble([FrozenTeacher(other), teacher]), {"image": IMAGES, "image_clean": clean})
    assert other.seen[0] is IMAGES
    assert saying.seen[1] is clean
    real = build_small(4)
    teacher, plain = FrozenTeacher(real, reads={"image": "image_clean"}), FrozenTeacher(real)
    both = {"image": IMAGES, "image_clean": clean}
    assert torch.equal(teacher.embed(both), plain.embed({"image": clean}))


def test_what_a_teacher_reads_and_the_batch_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"image_clean.*is missing"):
        run_model(FrozenTeacher(Saying(ONE), reads={"image": "image_clean"}), {"image": IMAGES})
