"""Students and teachers from the config: where the first weights come from, and what is never touched."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from small_models import OTHER, SMALL, are_equal, build_small, build_timm, save_run, state_of

from lib.config.sections import (
    OptimizerSection,
    RunConfig,
    StudentSection,
    TaskSection,
    TeacherSection,
    TrainingSection,
)
from lib.errors import UserError
from lib.models.build import build_student, build_teacher
from lib.models.classifier import EFFICIENTNET_B4, FrozenTeacher

RUN = "output/pretrain_mobilevit_a/weights/best_model.pth"


def make_config(
    *,
    stage: int = 1,
    student: str = SMALL,
    init: str = "random",
    weights: str | None = None,
    teacher: tuple[str, str] | None = None,
    allow: tuple[str, ...] = (),
) -> RunConfig:
    return RunConfig(
        name="n",
        config_name="c",
        stage=stage,  # type: ignore[arg-type]
        seed=5,
        device="cpu",
        num_workers=0,
        output_root="output",
        task="deepfake",
        task_section=TaskSection(),
        student=StudentSection(name=student, init=init, dropout=0.3, weights=weights),
        teacher=None if teacher is None else TeacherSection(name=teacher[0], weights=teacher[1]),
        training=TrainingSection(epochs=1, batch_size=1, max_skipped_in_a_row=50, keep_best=5),
        optimizer=OptimizerSection(
            base="sgd", lr=0.1, momentum=0.9, weight_decay=0.0, rho=0.05, clip_norm=1.0, flat=0.75, warmup=0.0
        ),
        criterion=(),
        allow=allow,
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whoever asks for a hub fails the test, and is written down."""
    import huggingface_hub
    import timm

    asked: list[str] = []

    def refuse(what: Any, *_: object, **__: object) -> NoReturn:
        asked.append(str(what))
        raise AssertionError(f"a hub was asked: {what}")

    build = timm.create_model

    def create(name: str, **settings: Any) -> Any:
        if settings.get("pretrained"):
            refuse(name)
        return build(name, **settings)

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(timm, "create_model", create)
    return asked


def build(config: RunConfig, **settings: Any) -> tuple[torch.nn.Module, list[str]]:
    lines: list[str] = []
    return build_student(config, classes=2, say=lines.append, **settings), lines


# --- Stage 1 --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_network")
def test_random_weights_are_said_to_be_random() -> None:
    _, lines = build(make_config(init="random"))
    assert lines == [f"student {SMALL}: random weights, as asked for (student_init: random)"]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_imagenet_is_first_looked_for_in_the_weights_folder(suffix: str) -> None:
    source = build_timm(1)
    path = f"weights/{SMALL}.imagenet.{suffix}"
    if suffix == "pth":
        torch.save(source.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(source.state_dict(), path)
    model, lines = build(make_config(init="imagenet"))
    assert torch.equal(model.backbone.conv1[0].weight, source.conv1[0].weight)  # type: ignore[union-attr, index]
    assert path in lines[0]
    assert "matched" in lines[0]


@pytest.mark.usefixtures("no_network")
def test_a_file_may_be_named() -> None:
    torch.save(build_timm(1).state_dict(), "mine.pth")
    model, lines = build(make_config(init="mine.pth"))
    assert torch.equal(model.backbone.conv1[0].weight, build_timm(1).conv1[0].weight)  # type: ignore[union-attr, index]
    assert lines[0].startswith("student mine.pth: ")


@pytest.mark.usefixtures("no_network")
def test_a_word_that_is_no_file_is_refused_with_the_words() -> None:
    with pytest.raises(UserError, match="imagenet, random, or a file"):
        build(make_config(init="imagnet"))


@pytest.mark.usefixtures("no_network")
def test_a_file_of_another_architecture_is_refused_and_allowed_only_in_part() -> None:
    torch.save(build_timm(1, OTHER).state_dict(), "other.pth")
    with pytest.raises(UserError, match="does not fit"):
        build(make_config(init="other.pth"))
    tensors = build_timm(1).state_dict()
    tensors.pop(next(iter(tensors)))
    torch.save(tensors, "most.pth")
    with pytest.raises(UserError, match="3 missing"):
        build(make_config(init="most.pth"))
    build(make_config(init="most.pth", allow=("partial-weights",)))


@pytest.mark.parametrize(
    "error",
    [urllib.error.URLError("Name or service not known"), TimeoutError("timed out"), ConnectionRefusedError("refused")],
)
def test_a_hub_that_cannot_be_reached_is_said_within_seconds_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    given: list[float] = []

    def urlopen(*_: object, timeout: float) -> NoReturn:
        given.append(timeout)
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        build(make_config(student="mobilevitv2_050", init="imagenet"))
    assert time.monotonic() - start < 5.0
    assert len(given) == 1
    assert given[0] <= 5.0
    text = caught.value.as_text()
    assert "the hub does not answer" in text
    assert "weights/mobilevitv2_050.imagenet.pth" in text
    assert "student_init=random" in text


def test_a_hub_that_answers_without_the_file_is_the_same_kind_of_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    build_model = timm.create_model

    def answer(*_: object, **__: object) -> NoReturn:
        raise urllib.error.HTTPError("https://hub", 401, "Unauthorized", Message(), None)

    def create(name: str, **settings: Any) -> Any:
        if settings.get("pretrained"):
            raise FileNotFoundError("LocalEntryNotFoundError")
        return build_model(name, **settings)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(UserError, match="the hub does not give them"):
        build(make_config(student="mobilevitv2_050", init="imagenet"))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("student", [EFFICIENTNET_B4, "mobilevitv2_050.cvnets_in1k"])
def test_a_student_without_pretrained_weights_or_name_asks_no_hub(student: str) -> None:
    with pytest.raises(UserError):
        build(make_config(student=student, init="imagenet"))


# --- Stage 2 --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_network")
def test_stage_2_takes_the_stage_1_checkpoint_head_included_and_prints_the_choice() -> None:
    save_run(Path(RUN), seed=3)
    model, lines = build(make_config(stage=2, init="imagenet", weights="output/pretrain_*/weights/best_model.pth"))
    assert are_equal(model.state_dict(), state_of(build_small(3)))
    assert RUN in lines[0]
    assert "took the newest that fits" in lines[0]
    assert "0 missing, 0 unexpected" in lines[1]


def test_stage_2_never_touches_a_hub(no_network: list[str]) -> None:
    for weights in (None, "output/pretrain_*/weights/best_model.pth", "absent.pth"):
        with pytest.raises(UserError):
            build(make_config(stage=2, student="mobilevitv2_050", init="imagenet", weights=weights))
    teacher = make_config(stage=2, teacher=("mobilevitv2_050", "absent.pth"))
    with pytest.raises(UserError):
        build_teacher(teacher, classes=2)
    assert no_network == []


@pytest.mark.usefixtures("no_network")
def test_stage_2_without_weights_says_that_it_asks_no_hub() -> None:
    with pytest.raises(UserError, match="stage 2 never asks a hub"):
        build(make_config(stage=2, init="imagenet"))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", ["absent", "folder", "headless", "other"])
def test_stage_1_weights_that_cannot_serve_are_refused(kind: str) -> None:
    path = Path("stage1.pth")
    if kind == "folder":
        path.mkdir()
    elif kind == "headless":
        torch.save({"model": build_timm(1).state_dict()}, path)
    elif kind == "other":
        save_run(path, name=OTHER)
    with pytest.raises(UserError) as caught:
        build(make_config(stage=2, weights=str(path)))
    assert "stage1.pth" in caught.value.as_text()
    assert "remedy" in caught.value.as_text()


@pytest.mark.usefixtures("no_network")
def test_a_resumed_run_looks_for_no_weights() -> None:
    _, lines = build(make_config(stage=2, init="imagenet", weights="gone/*.pth"), resumed=True)
    assert lines == []


def test_the_teacher_is_frozen_whole_and_said_to_be_so() -> None:
    save_run(Path("teacher.pth"), name=OTHER, seed=4)
    lines: list[str] = []
    teacher = build_teacher(make_config(stage=2, teacher=(OTHER, "teacher.pth")), classes=2, say=lines.append)
    assert isinstance(teacher, FrozenTeacher)
    assert are_equal(teacher.model.state_dict(), state_of(build_small(4, OTHER)))
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.model.training
    assert lines[0].startswith("teacher teacher.pth: ")
    assert "0 missing, 0 unexpected" in lines[0]


def test_a_teacher_of_the_students_architecture_gives_a_warning() -> None:
    save_run(Path("teacher.pth"))
    lines: list[str] = []
    build_teacher(make_config(stage=2, teacher=(SMALL, "teacher.pth")), classes=2, say=lines.append)
    assert any("warning: teacher and student are both" in line for line in lines)


def test_a_teacher_without_a_head_or_a_file_is_refused() -> None:
    torch.save(build_timm(1, OTHER).state_dict(), "imagenet.pth")
    for path, words in (("imagenet.pth", "head.1.weight"), ("absent.tar", "put the teacher's checkpoint there")):
        with pytest.raises(UserError, match=words):
            build_teacher(make_config(stage=2, teacher=(OTHER, path)), classes=2)


def test_stage_1_has_no_teacher() -> None:
    with pytest.raises(ValueError, match="no teacher"):
        build_teacher(make_config(), classes=2)
