"""Gaze models: sizes of published heads, one pass of the backbone a picture, files that lack some tensors."""

from __future__ import annotations

import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import ModelSpec
from sharpstudent.criterion.distillation import compute_kd_over_pixels
from sharpstudent.models.forward import sharing_frozen_parts
from sharpstudent.models.weights import load_weights
from sharpstudent.tasks.gaze.feature_cache import FeatureCache
from sharpstudent.tasks.gaze.model import GazeHead, GazeModel, build_coverage, build_masks, build_positions
from sharpstudent.tasks.gaze.task import GazeTask
from sharpstudent.train.tuning import start_training

SMALL = {"input_size": 32, "dim": 32, "layers": 1}
BOX = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.25, 1.0, 1.0], [0.98, 0.98, 1.0, 1.0]])


def build_small(**more: object) -> GazeModel:
    return GazeModel("gazelle_test_vit", side=32, inout=False, options={**SMALL, **more}).eval()


@pytest.mark.parametrize(
    ("channels", "count"), [(192, 2_679_296), (256, 2_695_680), (384, 2_728_448), (768, 2_826_752), (1024, 2_892_288)]
)
def test_heads_have_the_published_number_of_parameters(channels: int, count: int) -> None:
    assert sum(p.numel() for p in GazeHead(channels).parameters()) == count
    assert sum(p.numel() for p in GazeHead(channels, inout=0).parameters()) == count + 513


@pytest.mark.parametrize(("name", "channels"), [("vit_tiny", 192), ("vit_tinyplus", 256)])
def test_the_two_small_vits_are_built_by_name(name: str, channels: int) -> None:
    model = GazeModel(f"gazelle_dinov3_{name}", side=64, inout=False, options={"input_size": 64})
    assert model.backbone.channels == channels
    assert len(model.backbone.net.blocks) == 12


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match="gazelle_dinov3_vit_tiny, "):
        GazeModel("resnet18", side=32, inout=False, options={})
    with pytest.raises(UserError, match="has no option 'depth'"):
        GazeModel("gazelle_test_vit", side=32, inout=False, options={"depth": 3})


def test_a_picture_is_encoded_once_for_all_its_heads() -> None:
    model, seen = build_small(), []
    model.backbone.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    image = torch.rand(2, 3, 32, 32)
    together = model(image, torch.tensor([0, 0, 1]), BOX)["heatmap"]
    assert seen == [2]
    for row, picture in enumerate((0, 0, 1)):
        alone = model(image[picture : picture + 1], torch.tensor([0]), BOX[row : row + 1])["heatmap"]
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5)


def test_models_that_are_evaluated_together_encode_a_picture_once_for_each_different_backbone() -> None:
    first, second, other = build_small(), build_small(dim=48), build_small()
    second.backbone.load_state_dict(first.backbone.state_dict())
    seen: list[str] = []
    for name, model in (("first", first), ("second", second), ("other", other)):
        model.backbone.register_forward_hook(lambda *_, name=name: seen.append(name))
    image = torch.rand(1, 3, 32, 32)
    models, index = (first, second, other), torch.tensor([0, 0, 0])
    alone = [model(image, index, BOX)["heatmap"] for model in models]
    assert seen == ["first", "second", "other"]
    with sharing_frozen_parts():
        together = [model(image, index, BOX)["heatmap"] for model in models]
        assert seen[3:] == ["first", "other"]
        first(image.flip(3), index, BOX)  # other pixels are another picture
        assert seen[5:] == ["first"]
    assert all(torch.equal(one, two) for one, two in zip(alone, together, strict=True))
    second(image, index, BOX)
    assert seen[6:] == ["second"]


def test_the_backbone_is_frozen_and_stays_in_evaluation_mode() -> None:
    model = build_small()
    start_training(model)
    assert model.head.training
    assert not any(module.training for module in model.backbone.modules())
    model(torch.rand(1, 3, 32, 32), torch.tensor([0]), BOX[:1])["heatmap"].sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.head.parameters())


def test_masks_mark_the_cells_of_the_box_and_at_least_one() -> None:
    masks = build_masks(BOX, 4, 4)
    assert masks[0, :2, :2].all()
    assert masks.sum((1, 2)).tolist() == [4, 6, 1]
    coverage = build_coverage(torch.tensor([[0.125, 0.0, 0.5, 0.25]]), 4, 4)
    assert coverage[0, 0].tolist() == pytest.approx([1 / 3, 2 / 3, 0, 0])


def test_positions_are_sines_and_cosines_of_columns_and_rows() -> None:
    positions = build_positions(8, 3, 5)
    assert positions[0, 0, 3] == pytest.approx(float(torch.tensor(3.0).sin()))
    assert positions[5, 2, 1] == pytest.approx(float(torch.tensor(2.0).cos()))


def test_a_file_without_backbone_loads_where_one_is_loaded_and_warns() -> None:
    source, target = build_small(), build_small()
    head = {key: one for key, one in source.state_dict().items() if key.startswith("head.")}
    with pytest.raises(UserError, match="does not fit the model"):
        load_weights(target, head, where="a.pt", needs_head=True)
    target.has_backbone = True
    line = load_weights(target, head, where="a.pt", needs_head=True)
    assert "warning: the file has no tensors of the backbone" in line
    assert all(torch.equal(target.state_dict()[key], one) for key, one in head.items())


def test_a_head_with_the_published_names_and_its_convolutions_is_read() -> None:
    source, target = build_small(), build_small()
    published = {}
    for key, one in source.state_dict().items():
        is_pointwise = key in ("head.linear.weight", "head.heatmap_head.1.weight")
        published[key.removeprefix("head.")] = one[:, :, None, None] if is_pointwise else one
    load_weights(target, published, where="a.pt", needs_head=True)
    assert all(torch.equal(one, source.state_dict()[key]) for key, one in target.state_dict().items())


def test_a_checkpoint_of_training_is_a_teacher_with_backbone_and_head() -> None:
    student, teacher = build_small(train_backbone=True), build_small()
    load_weights(teacher, student.state_dict(), where="a.pt", needs_head=True)
    given = (torch.rand(1, 3, 32, 32), torch.tensor([0]), BOX[:1])
    assert torch.equal(teacher(*given)["heatmap"], student(*given)["heatmap"])


def test_with_a_weight_of_10_a_student_soon_says_what_its_teacher_says() -> None:
    torch.manual_seed(0)
    teacher, student = (GazeHead(8, dim=16, layers=1, pooled=True) for _ in range(2))
    given = (torch.rand(4, 8, 4, 4), torch.arange(4), BOX[[0, 1, 0, 1]])
    with torch.no_grad():
        wanted = 3 * teacher.eval()(*given)["heatmap"]
    optimizer, losses = torch.optim.Adam(student.parameters(), 1e-2), []
    for _ in range(30):
        found = student(*given)["heatmap"]
        losses.append(compute_kd_over_pixels(found, wanted, 1.0).mean())
        supervised = torch.nn.functional.binary_cross_entropy_with_logits(found, torch.zeros_like(found))
        optimizer.zero_grad()
        (supervised + 10 * losses[-1]).backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 4


def test_what_pooling_adds_is_the_look_the_place_and_their_product() -> None:
    torch.manual_seed(0)
    head = GazeHead(8, dim=16, layers=1, pooled=True)
    assert head.pool is not None
    assert head.relative is not None
    features, index, box = torch.rand(1, 8, 2, 2), torch.tensor([0]), torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    added = head._pool(features, index, box)
    looks = head.pool(features[0, :, 0, 0])
    far = (0.5**2 + 1e-6) ** 0.5  # the second cell lies half a picture to the right of the head's middle
    lies = head.relative(torch.tensor([0.5, 0.0, far, 0.5 / far, 0.0]))
    torch.testing.assert_close(added[0, 1], looks + lies + looks * lies)


def test_features_are_computed_once_for_the_same_pixels(tmp_path) -> None:
    model = build_small()
    cache, calls = FeatureCache(tmp_path / "features"), []
    cache.is_on = True
    model.backbone.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    image = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        first = cache(model.backbone, image[:2])
        again = cache(model.backbone, image)
        expected = model.backbone(image).half().float()
    assert calls == [2, 1, 3]
    assert torch.equal(first, again[:2])
    torch.testing.assert_close(again, expected, rtol=2e-3, atol=2e-3)
    file = next(path for path in (tmp_path / "features").rglob("*") if path.is_file())
    whole = file.read_bytes()
    for damaged in (whole[:20], whole[:-1], whole[:40] + bytes([whole[40] ^ 64]) + whole[41:]):
        file.write_bytes(damaged)
        with torch.no_grad():
            assert torch.equal(cache(model.backbone, image), again)
        assert file.read_bytes() == whole


def test_only_a_training_keeps_features_so_latency_and_answers_are_of_whole_models(tmp_path) -> None:
    folder = tmp_path / "features"
    task = GazeTask(GazeTask.Section(data_root=str(tmp_path), feature_cache=str(folder), image_size=32))
    model = task.build_student(ModelSpec("gazelle_test_vit", SMALL)).eval()
    inputs = task.example_batch(1).inputs
    with torch.no_grad():
        model(**inputs)
        assert not folder.exists()
        with pytest.raises(UserError):  # there is no data here; what counts is that training data was asked for
            task.open_data("train", "validation")
        model(**inputs)
        assert folder.exists()


def test_maps_of_another_size_are_resized_and_said() -> None:
    model = build_small()
    model.has_backbone = True
    _, notes = model.adapt_tensors({f"head.{key}": one for key, one in model.head.state_dict().items()}, 0)
    assert f"its maps of {2 * model.backbone.cells} x {2 * model.backbone.cells} cells are resized to 64 x 64" in notes
    outputs = model(torch.rand(1, 3, 32, 32), torch.tensor([0]), BOX[:1])
    assert outputs["heatmap"].shape == (1, 64, 64)


@pytest.mark.slow
def test_an_exported_model_takes_a_picture_and_boxes_of_any_number_of_heads() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs ONNX files: the extra onnx")
    pytest.importorskip("onnxscript", reason="writes ONNX files: the extra export")
    from sharpstudent.deploy.convert import build_form, quiet, to_onnx

    task = GazeTask(GazeTask.Section(layout="vat", image_size=32))
    model = task.build_student(ModelSpec("gazelle_test_vit", {"dim": 32, "layers": 1})).eval()
    with quiet():
        content = to_onnx(build_form(model, task.example_batch(3), task.export_spec())).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = {"image": torch.rand(2, 3, 32, 32), "image_index": torch.tensor([0, 0, 1, 1, 1]), "box": torch.rand(5, 4)}
    given["box"][:, 2:] = given["box"][:, :2] + 0.2
    found = session.run(["heatmap", "inside"], {name: one.numpy() for name, one in given.items()})
    with torch.inference_mode():
        wanted = model(**given)
    for name, values in zip(("heatmap", "inside"), found, strict=True):
        torch.testing.assert_close(torch.from_numpy(values), wanted[name], rtol=1e-3, atol=1e-4)
