"""The classifier form: sizes, keys, logits and feature maps of the models that the project is about."""

from __future__ import annotations

import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.models.forward import count_parameters
from sharpstudent.models.teachers import FrozenTeacher
from sharpstudent.models.vision import (
    EFFICIENTNET_B4,
    EfficientNetClassifier,
    TimmClassifier,
    build_classifier,
    check_model_name,
)
from small_models import OTHER, SMALL, build_small

# Families whose pooled features are wider than their last feature map, or whose backbone calls a layer `head`.
FAMILIES = [SMALL, OTHER, "mobilenetv3_small_050", "lcnet_035", "mobilenetv4_conv_small_035", "edgenext_xx_small"]


@pytest.fixture(scope="module")
def b4() -> EfficientNetClassifier:
    model = build_classifier(EFFICIENTNET_B4, classes=2, dropout=None)
    assert isinstance(model, EfficientNetClassifier)
    return model.eval()


def test_the_teacher_has_the_size_and_the_keys_of_the_published_weights(b4: EfficientNetClassifier) -> None:
    assert count_parameters(b4) == 17_552_202
    keys = list(b4.state_dict())
    assert all(key.startswith("net.") for key in keys)
    for key in ("net._conv_stem.weight", "net._blocks.0._depthwise_conv.weight", "net._blocks.31._bn2.bias"):
        assert key in keys
    assert [key for key in keys if "_fc" in key] == ["net._fc.weight", "net._fc.bias"]


def test_the_default_student_has_17_million_parameters_and_the_same_head_in_every_run() -> None:
    student = build_classifier("mobilevitv2_200", classes=2, dropout=0.3)
    assert round(count_parameters(student) / 1e6, 2) == 17.43
    assert isinstance(student.head[0], torch.nn.Dropout)
    assert student.head[0].p == 0.3
    keys = list(student.state_dict())
    assert [key for key in keys if not key.startswith("backbone.")] == ["head.1.weight", "head.1.bias"]


def test_the_dropout_of_either_library_is_the_one_asked_for() -> None:
    assert build_classifier(SMALL, classes=2, dropout=0.1).head[0].p == 0.1  # type: ignore[union-attr]
    b4 = build_classifier(EFFICIENTNET_B4, classes=2, dropout=0.1)
    assert b4.net._global_params.dropout_rate == 0.1  # type: ignore[union-attr]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_any_family_of_timm_gives_logits_and_feature_maps(name: str, classes: int) -> None:
    model = build_classifier(name, classes=classes, dropout=0.3).eval()
    with torch.no_grad():
        outputs = model(torch.rand(2, 3, 64, 64))
        features = model.get_features(torch.rand(2, 3, 64, 64))
    assert list(outputs) == ["logits"]
    assert outputs["logits"].shape == (2, classes)
    assert outputs["logits"].dtype == torch.float32
    assert features.ndim == 4
    assert features.shape[0] == 2


def test_the_teacher_gives_logits_at_small_sizes_too(b4: EfficientNetClassifier) -> None:
    with torch.no_grad():
        assert b4(torch.rand(2, 3, 64, 64))["logits"].shape == (2, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "channels"), [(EFFICIENTNET_B4, 1792), ("mobilevitv2_200", 1024)])
def test_the_last_feature_map_at_380_px_is_a_grid_of_12_by_12(name: str, channels: int) -> None:
    model = build_classifier(name, classes=2, dropout=0.3).eval()
    with torch.no_grad():
        assert model.get_features(torch.rand(1, 3, 380, 380)).shape == (1, channels, 12, 12)
        assert model(torch.rand(2, 3, 380, 380))["logits"].shape == (2, 2)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mobilevit2_200", "mobilevitv2_200"),
        ("efficientnet_b44", "efficientnet_b4"),
        ("eficientnet-b4", EFFICIENTNET_B4),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(UserError) as caught:
        build_classifier(typed, classes=2, dropout=0.3)
    assert typed in caught.value.as_text()
    assert meant in str(caught.value.problems[0].remedy)


def test_a_name_that_is_near_to_none_says_where_the_names_are() -> None:
    with pytest.raises(UserError, match=r"timm\.list_models"):
        check_model_name("@@@@@@@@@@")


def test_a_frozen_teacher_gives_the_same_outputs_twice_and_its_features() -> None:
    teacher = FrozenTeacher(build_small(0).train())
    images = torch.rand(2, 3, 64, 64)
    teacher.train()
    assert torch.equal(teacher(image=images)["logits"], teacher(image=images)["logits"])
    assert not teacher.embed({"image": images}).requires_grad
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_student_alone_is_a_timm_classifier_with_its_own_head() -> None:
    model = build_small(0)
    assert isinstance(model, TimmClassifier)
    with torch.no_grad():
        images = torch.rand(2, 3, 64, 64)
        model.eval()
        pooled = model.backbone(images)
        torch.testing.assert_close(model(images)["logits"], model.head[1](pooled))
