"""Students and teachers from the config: where the first weights come from, and what is never touched."""

from __future__ import annotations

import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from sharpstudent.config.run_config import (
    OptimizerSection,
    RunConfig,
    StudentSection,
    TaskSection,
    TeacherSection,
    TrainingSection,
)
from sharpstudent.core.errors import UserError
from sharpstudent.models.build import build_student, build_teachers, print_layers
from sharpstudent.models.hooks import list_layers
from sharpstudent.models.teachers import TeacherEnsemble
from sharpstudent.models.vision import EFFICIENTNET_B4
from small_models import OTHER, SMALL, PictureModels, are_equal, build_small, build_timm, save_run, state_of

RUN = "output/pretrain_mobilevit_a/weights/best_model.pth"


def make_config(
    *,
    stage: int = 1,
    student: str = SMALL,
    init: str = "random",
    weights: str | None = None,
    teacher: tuple[str, str] | None = None,
    teachers: tuple[TeacherSection, ...] = (),
    average: Any = "logits",
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
        teachers=teachers if teacher is None else (TeacherSection(name=teacher[0], weights=teacher[1]),),
        teacher_average=average,
        training=TrainingSection(epochs=1, batch_size=1, max_skipped_in_a_row=50, keep_best=5, selection_metric="auc"),
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
    """A request to a hub fails the test and is recorded."""
    import huggingface_hub
    import timm

    requests: list[str] = []

    def refuse(what: Any, *_: object, **__: object) -> NoReturn:
        requests.append(str(what))
        raise AssertionError(f"a request to a hub: {what}")

    build = timm.create_model

    def create(name: str, **settings: Any) -> Any:
        if settings.get("pretrained"):
            refuse(name)
        return build(name, **settings)

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(timm, "create_model", create)
    return requests


def build(config: RunConfig, **settings: Any) -> tuple[torch.nn.Module, list[str]]:
    lines: list[str] = []
    return build_student(config, PictureModels(), say=lines.append, **settings), lines


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
    with pytest.raises(UserError) as caught:
        build(make_config(student="mobilevitv2_050", init="imagenet"))
    assert len(given) == 1
    assert given[0] <= 5.0
    text = caught.value.as_text()
    assert "the hub does not answer" in text
    assert "weights/mobilevitv2_050.imagenet.pth" in text
    assert "student_init=random" in text


def test_a_hub_without_the_file_is_the_same_kind_of_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    build_model = timm.create_model

    def respond(*_: object, **__: object) -> NoReturn:
        raise urllib.error.HTTPError("https://hub", 401, "Unauthorized", Message(), None)

    def create(name: str, **settings: Any) -> Any:
        if settings.get("pretrained"):
            raise FileNotFoundError("LocalEntryNotFoundError")
        return build_model(name, **settings)

    monkeypatch.setattr(urllib.request, "urlopen", respond)
    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(UserError, match="the hub does not give them"):
        build(make_config(student="mobilevitv2_050", init="imagenet"))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("student", [EFFICIENTNET_B4, "mobilevitv2_050.no_such_tag"])
def test_a_student_without_pretrained_weights_or_name_contacts_no_hub(student: str) -> None:
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
        build_teachers(teacher, PictureModels())
    assert no_network == []


@pytest.mark.usefixtures("no_network")
def test_stage_2_without_weights_says_that_it_contacts_no_hub() -> None:
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
    teacher = build_teachers(make_config(stage=2, teacher=(OTHER, "teacher.pth")), PictureModels(), say=lines.append)
    assert isinstance(teacher, TeacherEnsemble)
    assert are_equal(teacher.members[0].model.state_dict(), state_of(build_small(4, OTHER)))
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    assert lines[0].startswith("teacher teacher.pth: ")
    assert "0 missing, 0 unexpected" in lines[0]


def test_a_teacher_of_the_students_architecture_gives_a_warning() -> None:
    save_run(Path("teacher.pth"))
    lines: list[str] = []
    build_teachers(make_config(stage=2, teacher=(SMALL, "teacher.pth")), PictureModels(), say=lines.append)
    assert any("warning: teacher and student are both" in line for line in lines)


def test_a_teacher_without_a_head_or_a_file_is_refused() -> None:
    torch.save(build_timm(1, OTHER).state_dict(), "imagenet.pth")
    for path, words in (("imagenet.pth", "1000 classes apart"), ("absent.tar", "put the teacher's checkpoint there")):
        with pytest.raises(UserError, match=words):
            build_teachers(make_config(stage=2, teacher=(OTHER, path)), PictureModels())


def test_stage_1_has_no_teacher() -> None:
    with pytest.raises(ValueError, match="no teacher"):
        build_teachers(make_config(), PictureModels())


# --- Several teachers -----------------------------------------------------------------------------------------------


def build_all(*sections: TeacherSection, **settings: Any) -> tuple[TeacherEnsemble, list[str]]:
    lines: list[str] = []
    config = make_config(**{"stage": 2, "student": "test_vit", "teachers": sections, **settings})
    return build_teachers(config, PictureModels(), say=lines.append), lines


def test_every_teacher_is_loaded_counted_and_given_its_settings() -> None:
    save_run(Path("one.pth"), seed=4)
    save_run(Path("two.pth"), name=OTHER, seed=5)
    ensemble, lines = build_all(
        TeacherSection(name=SMALL, weights="one.pth", weight=3.0, classes=("fake", "real")),
        TeacherSection(name=OTHER, weights="two.pth", input_size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        average="probabilities",
    )
    assert [line.split(": ")[0] for line in lines[:2]] == ["teacher 1 one.pth", "teacher 2 two.pth"]
    assert all("0 missing, 0 unexpected" in line for line in lines[:2])
    assert lines[2:] == ["2 teachers, the average of their probabilities: test_resnet 75%, test_efficientnet 25%"]
    assert are_equal(ensemble.members[1].model.state_dict(), state_of(build_small(5, OTHER)))
    first, second = ensemble.members
    assert (first.order, second.order) == ((1, 0), None)
    assert (first.model.preprocess, second.model.preprocess.input_size) == (None, 64)  # type: ignore[union-attr]
    images = torch.rand(2, 3, 64, 64)
    outputs = [build_small(4).eval()(images)["logits"].flip(1), build_small(5, OTHER).eval()(2 * images - 1)["logits"]]
    shares = [logits.softmax(1) * share for logits, share in zip(outputs, (0.75, 0.25), strict=True)]
    torch.testing.assert_close(ensemble(image=images)["logits"].softmax(1), sum(shares))


def test_the_problems_of_all_teachers_are_reported_together() -> None:
    save_run(Path("fits.pth"))
    with pytest.raises(UserError) as caught:
        build_all(
            TeacherSection(name=SMALL, weights="absent.pth"),
            TeacherSection(name=SMALL, weights="fits.pth"),
            TeacherSection(name=SMALL, weights="fits.pth", classes=("real", "fake", "unsure")),
        )
    assert [problem.where for problem in caught.value.problems] == [
        "teachers[0].weights = 'absent.pth'",
        "teachers[2].classes",
    ]
    assert "has other classes than the task" in str(caught.value)


@pytest.mark.parametrize("name", [SMALL, EFFICIENTNET_B4])
def test_a_teacher_of_three_classes_is_refused_by_name(name: str) -> None:
    torch.save({"model": build_small(1, name, classes=3).state_dict()}, "three.pth")
    with pytest.raises(UserError, match="this teacher tells 3 classes apart, and the task has 2") as caught:
        build_all(TeacherSection(name=name, weights="three.pth"))
    assert "teacher_weights = 'three.pth'" in str(caught.value)


def test_a_random_head_is_taken_only_with_permission_and_said_aloud() -> None:
    torch.save(build_timm(1).state_dict(), "imagenet.pth")
    with pytest.raises(UserError, match="1000 classes"):
        build_all(TeacherSection(name=SMALL, weights="imagenet.pth"))
    ensemble, lines = build_all(TeacherSection(name=SMALL, weights="imagenet.pth", head="random-ok"))
    assert torch.equal(ensemble.members[0].model.backbone.conv1[0].weight, build_timm(1).conv1[0].weight)  # type: ignore[union-attr, index]
    assert "the head starts from random weights" in lines[0]
    assert lines[1].startswith("warning: teacher may have a random head")


def test_a_random_head_is_the_same_in_every_start_of_a_run_and_moves_no_other_draw() -> None:
    torch.save(build_timm(1).state_dict(), "imagenet.pth")
    sections = [TeacherSection(name=SMALL, weights="imagenet.pth", head="random-ok")] * 2
    heads: list[list[torch.Tensor]] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.rand(3)
        torch.manual_seed(seed)
        ensemble, _ = build_all(*sections)
        assert torch.equal(torch.rand(3), expected)
        heads.append([member.model.head[1].weight for member in ensemble.members])  # type: ignore[union-attr, index]
    assert all(torch.equal(a, b) for a, b in zip(*heads, strict=True))
    assert not torch.equal(heads[0][0], heads[0][1])


@pytest.mark.usefixtures("no_network")
def test_imagenet_weights_come_first_and_the_fine_tuned_file_after_them() -> None:
    torch.save(build_timm(1).state_dict(), f"weights/{SMALL}.imagenet.pth")
    tuned = dict(build_small(2).state_dict())
    stem = "backbone.conv1.0.weight"
    del tuned[stem]
    torch.save(tuned, "tuned.pth")
    section = TeacherSection(name=SMALL, weights="tuned.pth", init="imagenet")
    ensemble, lines = build_all(section, allow=("partial-weights",))
    state = ensemble.members[0].model.state_dict()
    assert torch.equal(state[stem], build_timm(1).state_dict()["conv1.0.weight"])
    assert torch.equal(state["head.1.weight"], tuned["head.1.weight"])
    assert f"weights/{SMALL}.imagenet.pth" in lines[0]
    assert "1 missing, 0 unexpected" in lines[1]


@pytest.mark.usefixtures("no_network")
def test_a_teacher_without_imagenet_weights_is_reported_by_its_own_key() -> None:
    section = TeacherSection(name=EFFICIENTNET_B4, weights="t.pth", init="imagenet")
    with pytest.raises(UserError) as caught:
        build_all(section)
    assert caught.value.problems[0].where == "teachers[0].init = 'imagenet'"
    assert "student_init" not in str(caught.value)


@pytest.mark.parametrize("way", ["the same path", "a copy", "a link", "a pattern"])
def test_a_teacher_from_the_students_own_file_is_said_plainly(way: str) -> None:
    own = save_run(Path(RUN), seed=3)
    path = own if way == "the same path" else Path("copy.pth")
    if way == "a link":
        path.symlink_to(own.absolute())
    elif path != own:
        path.write_bytes(own.read_bytes())
    weights = "output/pretrain_*/weights/best_model.pth" if way == "a pattern" else RUN
    section = TeacherSection(name=SMALL, weights=str(path))
    _, lines = build_all(section, student=SMALL, weights=weights)
    assert [line for line in lines if "learns nothing from it" in line and "pretrained_student_weights" in line]
    other = save_run(Path("other.pth"), seed=4)
    _, lines = build_all(TeacherSection(name=SMALL, weights=str(other)), student=SMALL, weights=weights)
    assert not [line for line in lines if "learns nothing from it" in line]


def test_the_same_teacher_twice_gives_a_warning() -> None:
    save_run(Path("one.pth"), seed=4)
    Path("copy.pth").write_bytes(Path("one.pth").read_bytes())
    save_run(Path("two.pth"), seed=5)
    sections = [TeacherSection(name=SMALL, weights=path) for path in ("one.pth", "two.pth", "copy.pth")]
    _, lines = build_all(*sections)
    twice = [line for line in lines if "counted twice" in line]
    assert len(twice) == 1
    assert "teachers[2].weights and teachers[0].weights are the same weights" in twice[0]


def test_layers_are_printed_for_each_model_at_its_own_size_without_any_weights() -> None:
    sections = (
        TeacherSection(name=SMALL, weights="absent.pth"),
        TeacherSection(name=OTHER, input_size=64, weights="x"),
    )
    lines: list[str] = []
    print_layers(make_config(stage=2, teachers=sections), PictureModels(), say=lines.append)
    heads = [line for line in lines if not line.startswith("  ")]
    assert heads == [
        "student test_resnet, image (B, 3, 32, 32):",
        "teacher 1 test_resnet, image (B, 3, 32, 32):",
        "teacher 2 test_efficientnet, image (B, 3, 32, 32):",
    ]
    rows = {line.split()[0]: line for line in lines if line.startswith("  ")}
    # Of pictures at the side that this teacher has them resized to.
    expected = dict(list_layers(build_small(0, OTHER), {"image": torch.zeros(1, 3, 64, 64)}))["backbone.blocks.1"]
    assert rows["2.backbone.blocks.1"].endswith(f"(B, {', '.join(map(str, expected[1:]))})")
    assert {"backbone.layer2", "2.backbone.blocks.1"} <= rows.keys()
    assert "backbone.blocks.1" not in rows
