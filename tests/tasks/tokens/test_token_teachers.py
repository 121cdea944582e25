"""Teachers of the task, what is refused of them, and terms on tokens, clauses and attention maps."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from sharpstudent.config.cli import parse_command_line
from sharpstudent.config.terms import TERMS, build_terms_type
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import ModelSpec
from sharpstudent.criterion.build import build_criterion
from sharpstudent.models.teachers import FrozenTeacher
from sharpstudent.registry import find_task
from sharpstudent.tasks.tokens.models import SmallCNN
from sharpstudent.tasks.tokens.section import TokensSection
from sharpstudent.tasks.tokens.task import TokensTask
from sharpstudent.train.build import hook_layers
from workplace import ROOT, Workplace

TASK = "sharpstudent.tasks.tokens.task:TokensTask"


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_vits_and_swins_of_timm_teach_at_the_size_of_the_students_pictures(name: str) -> None:
    task = TokensTask(TokensSection(source="drawn", image_size=64))
    model = task.build_teacher(ModelSpec(name, role="teacher")).eval()
    with torch.no_grad():
        assert model(image=task.example_batch(1).inputs["image"])["logits"].shape == (1, 10)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("teachers"))
    config: dict[str, Any] = {
        "task": TASK, "data": {"source": "drawn"}, "student": {"name": "tm_vit", "patch_size": 14, "clauses": 8},
        "teacher": "cnn", "teacher_weights": "teacher.pth", "epoch": 1, "optimizer": "adamw", "rho": 0.0,
        "stage2": {"batch_size": 32, "terms": [{"term": "hard"}, {"term": "kd"}]}, "num_workers": 0, "device": "cpu",
    }  # fmt: skip
    (place / "tokens.json").write_text(json.dumps(config))
    return place


def distil(place: Workplace, *words: str) -> str:
    """The message with which stage 2 refuses the config."""
    command = ("main_distillation.py", "tokens.json", "-n", "x", "--dry-run", "--allow", "unpretrained-student", *words)
    ended = place.call(*command)
    assert ended.code == 2, ended.out + ended.err
    return " ".join((ended.out + ended.err).split())


def test_a_teacher_with_a_head_of_another_size_is_refused(place: Workplace) -> None:
    torch.save(SmallCNN(1, 5).state_dict(), place / "teacher.pth")
    message = distil(place)
    assert "5 classes" in message
    assert "10" in message


def test_a_teacher_whose_file_has_no_head_is_refused_until_it_is_fitted(place: Workplace) -> None:
    tensors = {name: one for name, one in SmallCNN(1, 10).state_dict().items() if not name.startswith("head")}
    torch.save(tensors, place / "teacher.pth")
    assert "head" in distil(place)


def test_a_teacher_of_other_channels_is_refused(place: Workplace) -> None:
    torch.save(SmallCNN(3, 10).state_dict(), place / "teacher.pth")
    assert "backbone.0.weight" in distil(place)


def test_the_average_as_a_teacher_without_a_decay_is_refused(place: Workplace) -> None:
    torch.save(SmallCNN(1, 10).state_dict(), place / "teacher.pth")
    assert "ema_decay" in distil(place, "--set", 'stage2.terms=[{"term": "self"}]')


@pytest.mark.parametrize(
    "term",
    [
        {"term": "embedding", "on": "embedding", "of": "embedding"},
        {"term": "embedding", "on": "clauses", "of": "clauses", "projection": "none"},
        {"term": "features", "student_layer": "blocks.0.norm2", "teacher_layer": "blocks.0.norm2"},
        {
            "term": "features",
            "student_layer": "blocks.0.feed_forward.core.usage",
            "teacher_layer": "blocks.0.feed_forward.core.usage",
        },
        {
            "term": "attention",
            "student_layer": "blocks.0.feed_forward.core.usage",
            "teacher_layer": "blocks.0.attention.proj",
        },
    ],
    ids=["embedding", "clauses", "tokens", "clauses by token", "attention as clause targets"],
)
def test_features_clauses_and_attention_maps_teach_the_clauses(term: dict[str, Any]) -> None:
    check_term(term, ModelSpec("tm_vit", {"patch_size": 7, "clauses": 8}, role="teacher"))


def test_the_map_of_a_cnn_is_a_target_for_the_clauses_of_each_place() -> None:
    layer = "blocks.0.feed_forward.core.usage"
    term = {"term": "attention", "student_layer": layer, "teacher_layer": "backbone.7"}
    check_term(term, ModelSpec("cnn", role="teacher"))


@pytest.mark.parametrize(
    "term",
    [
        {"term": "hard"}, {"term": "kd"}, {"term": "self"}, {"term": "hard", "on": "aux.*"},
        {"term": "supcon", "on": "embedding"}, {"term": "clause_sparsity"},
    ],
    ids=["labels", "teacher", "average", "diagnostic heads", "contrast", "quiet clauses"],
)  # fmt: skip
def test_each_of_the_six_terms_teaches_the_clauses_alone(term: dict[str, Any]) -> None:
    check_term(term, ModelSpec("cnn", role="teacher"))


def check_term(term: dict[str, Any], teacher: ModelSpec) -> None:
    """The term, all by itself, has a gradient in the masks of the student."""
    (keys,) = TypeAdapter(build_terms_type(TERMS)).validate_python([term])
    section = keys.resolve(TERMS[keys.term])
    task = TokensTask(TokensSection(source="drawn"))
    student = task.build_student(ModelSpec("tm_vit", {"patch_size": 7, "clauses": 8}))
    torch.manual_seed(1)
    frozen = FrozenTeacher(task.build_teacher(teacher))
    average = task.build_student(ModelSpec("tm_vit", {"patch_size": 7, "clauses": 8}))
    batch = task.example_batch(12)
    shapes = hook_layers([section], student, frozen, batch)
    criterion = build_criterion([section], shapes, batch)
    outputs = student(**batch.inputs)
    loss = criterion(
        outputs, batch, {"teacher": frozen(**batch.inputs), "ema": average(**batch.inputs)}, Progress(1, 0, 1, 1)
    ).total
    loss.backward()
    if "norm2" not in str(term):  # the tokens before the machine
        assert all(one.grad.abs().sum() > 0 for name, one in student.named_parameters() if ".ta_" in name)


@pytest.mark.parametrize("name", ["tm_vit", pytest.param("tm_swin", marks=pytest.mark.slow)])
def test_models_are_exported_to_onnx_with_parity_and_without_warnings(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs ONNX files: the extra onnx")
    pytest.importorskip("onnxscript", reason="writes ONNX files: the extra export")
    torch.manual_seed(0)
    task = TokensTask(TokensSection(source="drawn", image_size=16))
    options: dict[str, Any] = {"patch_size": 4, "clauses": 8, "clause_specialize": 0.5}
    model: Any = task.build_student(ModelSpec(name, options)).train()
    for _ in range(2):
        model(torch.rand(4, 1, 16, 16))  # gains of the heads that are not 1
    model.eval()
    image, path = torch.rand(3, 1, 16, 16), tmp_path / "model.onnx"
    rows = torch.export.Dim("rows")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*attribute.*assigned.*")
        program = torch.onnx.export(
            model, (image,), dynamo=True, dynamic_shapes={"image": {0: rows}}, input_names=["image"], verbose=False
        )
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = model(image)["logits"].detach()
    found = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert any(one.shape == (3, 10) and torch.allclose(torch.from_numpy(one), wanted, atol=1e-4) for one in found)


def test_every_config_of_the_task_is_read() -> None:
    for path in sorted((ROOT / "configs").glob("tokens_*.json")):
        parse_command_line([str(path), "-n", "x"], stage=1, find_task=find_task)
