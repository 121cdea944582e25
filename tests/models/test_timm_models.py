"""Any timm model is a student or a teacher: at its own size and at others, by every name, with every kind of head."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

import pytest
import timm
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Batch, ModelSpec
from sharpstudent.models.build import build_student, build_teachers, print_layers
from sharpstudent.models.forward import count_parameters
from sharpstudent.models.hooks import list_layers
from sharpstudent.models.vision import Classifier, TimmClassifier, build_classifier, find_sizes
from sharpstudent.models.weights import load_weights
from small_models import PictureModels, are_equal
from test_build_models import TeacherSection, make_config
from torch import Tensor, nn

VIT = "vit_tiny_patch16_224"
SIDE = 64


class LargerPictures(PictureModels):
    """Builds models for pictures of 64 x 64, as the task of faces does for its image size."""

    def build_student(self, spec: ModelSpec) -> Classifier:
        return build_classifier(spec.name, classes=2, dropout=spec.dropout, options=spec.options, side=SIDE)

    def example_batch(self, count: int) -> Batch:
        return Batch(inputs={"image": torch.zeros(count, 3, SIDE, SIDE)}, rows={"id": ["a"], "group": ["a"]})


def make_pictures(side: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(5))


def make_native(name: str, classes: int) -> nn.Module:
    """A published model with timm's own head, and statistics as after a training."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        native = timm.create_model(name, num_classes=classes).eval()
        for module in native.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return native


# --- Sizes ----------------------------------------------------------------------------------------------------------


def test_a_model_of_one_size_is_built_for_the_tasks_pictures() -> None:
    assert find_sizes(VIT, 224) == {}
    assert find_sizes(VIT, 256) == {"img_size": 256}
    assert find_sizes("mobilevitv2_050", 224) == {}, "what takes any size is built as before"
    said: list[str] = []
    config = make_config(stage=2, student=VIT, teachers=(TeacherSection(name=VIT, weights="x"),))
    print_layers(config, LargerPictures(), say=said.append)
    assert said[0] == f"student {VIT}, image (B, 3, {SIDE}, {SIDE}):"
    assert len(said) > 20


def test_a_size_that_no_model_of_the_name_takes_is_one_message_with_one_that_fits() -> None:
    with pytest.raises(UserError, match="takes no pictures of 64 px") as caught:
        build_classifier("efficientformer_l1", classes=2, dropout=None, side=64)
    assert "remedy: --set image_size=224" in caught.value.as_text()
    with pytest.raises(UserError, match="such as 70 px"):
        find_sizes("deepseek_vit_412m", 64)
    assert find_sizes("deepseek_vit_412m", 70) == {}


def test_finding_out_a_size_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    find_sizes("vit_small_patch16_224", 96)
    assert torch.equal(torch.get_rng_state(), before)


def test_positions_are_resampled_to_the_tasks_pictures_and_that_is_told(tmp_path: Path) -> None:
    from timm.layers import resample_abs_pos_embed

    published = timm.create_model(VIT, num_classes=2)
    torch.save(published.state_dict(), tmp_path / "w.pth")
    said: list[str] = []
    section = TeacherSection(name=VIT, weights=str(tmp_path / "w.pth"))
    teachers = build_teachers(make_config(stage=2, teachers=(section,)), LargerPictures(), say=said.append)
    found = teachers.members[0].model.get_parameter("backbone.pos_embed")
    assert torch.allclose(found, resample_abs_pos_embed(published.pos_embed, [4, 4]))  # type: ignore[arg-type]
    assert any("1 tensors are resampled to this picture size, such as pos_embed" in line for line in said)
    section = section.model_copy(update={"input_size": 224})
    teachers = build_teachers(make_config(stage=2, teachers=(section,)), LargerPictures(), say=said.append)
    want = published.eval()(nn.functional.interpolate(make_pictures(SIDE), (224, 224), mode="bilinear", antialias=True))
    assert torch.allclose(teachers(image=make_pictures(SIDE))["logits"], want, atol=1e-5)


def test_weights_that_timm_cannot_resample_name_the_size_as_the_remedy() -> None:
    model = build_classifier("levit_128s", classes=2, dropout=None, side=SIDE)
    with pytest.raises(UserError, match="built for pictures of 64 px") as caught:
        load_weights(model, make_native("levit_128s", 2).state_dict(), where="w", needs_head=True)
    assert "input_size in `teachers`" in caught.value.as_text()


def test_a_checkpoint_of_another_size_is_read_back_bit_for_bit() -> None:
    saved = build_classifier(VIT, classes=2, dropout=None, side=SIDE)
    again = build_classifier(VIT, classes=2, dropout=None, side=SIDE)
    load_weights(again, saved.state_dict(), where="w", needs_head=True)
    assert are_equal(again.state_dict(), saved.state_dict())


# --- Names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mobilevitv2_050.cvnets_in1k", "vit_tiny_r_s16_p8_224_in21k"])
def test_tags_and_earlier_names_are_names(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm tells what it calls the model today
        student = build_student(make_config(student=name), LargerPictures(), say=lambda _: None)
    assert student(make_pictures(SIDE))["logits"].shape == (2, 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mobilevitv2_050.imagenet", "mobilevitv2_050.cvnets_in1k"),
        ("timm/mobilevitv2_050.cvnets_in1k", "did you mean mobilevitv2_050"),
    ],
)
def test_a_wrong_tag_and_an_owner_are_refused_with_the_right_name(name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        build_classifier(name, classes=2, dropout=None)
    assert words in caught.value.as_text()


# --- Heads ----------------------------------------------------------------------------------------------------------


HEADS = {
    "levit_128s": "two of BatchNorm and Linear",
    "shvit_s1": "BatchNorm and Linear",
    "swiftformer_xs": "two of Linear",
    "resnetv2_18": "a convolution",
    "edgenext_xx_small": "Linear beside a norm of the backbone called head.norm",
}
SLOW_HEADS = ["repvit_m0_9", "efficientformer_l1", "efficientvit_m0", "dpn68", "inception_next_atto", "cpubone_t0"]


@pytest.mark.parametrize("name", [*HEADS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_HEADS)])
def test_a_published_model_with_timms_own_head_gives_its_logits(name: str) -> None:
    side = timm.get_pretrained_cfg(name).input_size[-1]  # type: ignore[union-attr]
    for classes in (2, 1):
        native, ours = make_native(name, classes), build_classifier(name, classes=2, dropout=0.1, side=side).eval()
        load_weights(ours, native.state_dict(), where="w", needs_head=True, classes=("real", "fake"))
        with torch.no_grad():
            wanted, found = native(make_pictures(side)), ours(make_pictures(side))["logits"]
        wanted = wanted if classes == 2 else torch.cat([torch.zeros_like(wanted), wanted], 1)
        assert torch.allclose(found, wanted, atol=1e-5), classes


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "efficientvim_m1"])
def test_a_head_that_reads_more_than_the_pooled_features_is_refused_with_the_way_out(name: str) -> None:
    model = build_classifier(name, classes=2, dropout=None)
    with pytest.raises(UserError) as caught:
        load_weights(model, make_native(name, 2).state_dict(), where="w", needs_head=True, classes=("real", "fake"))
    assert "its backbone fits, and its head is no linear layer" in caught.value.as_text()
    assert '"head": "fitted"' in caught.value.as_text()


def test_an_encoder_is_refused_in_one_message() -> None:
    class Encoder(TimmClassifier):
        """As timm's names that end in _enc, of 170 M parameters and more: one vector for each patch."""

        def __init__(self) -> None:
            super().__init__("test_resnet", classes=2, dropout=0.0)
            self.backbone = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(2))

    with pytest.raises(UserError, match="is an encoder without a classifier"):
        Encoder()(make_pictures(32))


# --- Every family ---------------------------------------------------------------------------------------------------

MOST_PARAMETERS = 60_000_000  # with gradients and pictures of 256 px below 3 GiB; larger ones on the meta device only
SMALL_WORDS = ("test_", "pico", "femto", "atto", "nano", "tiny", "mini", "small", "_050", "_xs", "_t0", "_m0", "_b0")


def list_families() -> list[str]:
    return sorted(timm.list_modules())


def choose_member(family: str) -> str:
    """A small model of a family, by the words of its name."""
    names = [name for name in timm.list_models(module=family) if not name.startswith("test_")]
    return min(names or timm.list_models(module=family), key=lambda n: (not any(w in n for w in SMALL_WORDS), len(n)))


@pytest.mark.slow
@pytest.mark.parametrize("family", list_families())
@pytest.mark.filterwarnings("ignore")
def test_a_model_of_every_family_works_at_two_sizes_or_says_in_one_message_why_not(family: str) -> None:
    if not timm.list_models(module=family):
        pytest.skip("a family without names of its own")
    name = choose_member(family)
    for side in (256, 96):
        with torch.device("meta"):
            is_large = count_parameters(TimmClassifier(name, classes=2, dropout=0.0)) > MOST_PARAMETERS
        try:
            with torch.device("meta" if is_large else "cpu"):
                model = build_classifier(name, classes=2, dropout=None, side=side)
                assert model(make_pictures(side).to("meta" if is_large else "cpu"))["logits"].shape == (2, 2)
        except UserError as error:
            (problem,) = error.problems
            assert problem.remedy is not None, name
            fitting = int(problem.remedy.partition("image_size=")[2].partition(";")[0])
            with torch.device("meta"):
                build_classifier(name, classes=2, dropout=None, side=fitting)(torch.zeros(2, 3, fitting, fitting))
            continue
        if not is_large:
            check_training(model, name, side)
        gc.collect()


def check_training(model: Classifier, name: str, side: int) -> None:
    """Gradients reach the first layer, layers have names, and the state is read back."""
    model.train()(make_pictures(side))["logits"].square().sum().backward()
    gradient = next(p.grad for p in model.parameters() if p.requires_grad)
    assert gradient is not None, name
    assert gradient.isfinite().all(), name
    model.eval()
    model.zero_grad()
    assert list_layers(model, {"image": make_pictures(side)}), name
    again = build_classifier(name, classes=2, dropout=None, side=side)
    load_weights(again, model.state_dict(), where=name, needs_head=True)
    assert are_equal(again.state_dict(), model.state_dict()), name
