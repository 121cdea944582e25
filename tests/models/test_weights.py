"""Weights are loaded whole or not at all, and what does not fit is shown from both sides."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from efficientnet_pytorch import EfficientNet
from sharpstudent.core.errors import UserError
from sharpstudent.models.vision import EFFICIENTNET_B4, build_classifier
from sharpstudent.models.weight_files import read_tensors
from sharpstudent.models.weights import (
    compute_weights_hash,
    count_head_classes,
    find_fitting_weights,
    is_head,
    load_weights,
    match_tensors,
    rename_by_order,
)
from small_models import OTHER, SMALL, are_equal, build_small, build_timm, save_run, state_of
from torch import Tensor, nn


def test_the_published_form_of_the_teachers_checkpoint_loads_in_full(tmp_path: Path) -> None:
    """Defects 1 and 7 of the origin: FFc23.tar loaded nothing, silently; the head's key differed."""
    net = EfficientNet.from_name("efficientnet-b4", num_classes=2)
    state = {f"net.{key}": value for key, value in net.state_dict().items()}
    path = tmp_path / "FFc23.tar"
    torch.save({"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.001}]}, "epoch": 99}, path)
    teacher = build_classifier(EFFICIENTNET_B4, classes=2, dropout=None)
    line = load_weights(teacher, read_tensors(path), where=str(path), needs_head=True)
    assert line == f"{path}: {len(state)} tensors matched, 0 missing, 0 unexpected"
    assert are_equal(teacher.state_dict(), state)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "net.", "model.", "module.net."])
def test_wrappers_and_prefixes_are_undone(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    source, model = build_small(1), build_small(0)
    state = {prefix + key: value for key, value in source.state_dict().items()}
    path = tmp_path / "file.pth"
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3, "val_auc": 0.9}, path)
    line = load_weights(model, read_tensors(path), where="file.pth", needs_head=True)
    assert f"{len(state)} tensors matched, 0 missing, 0 unexpected" in line
    assert are_equal(model.state_dict(), source.state_dict())


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source, model = build_small(1), build_small(0)
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, tmp_path / "a.safetensors")
    load_weights(model, read_tensors(tmp_path / "a.safetensors"), where="a", needs_head=True)
    assert are_equal(model.state_dict(), source.state_dict())


@pytest.mark.parametrize("name", [SMALL, OTHER, "mobilevitv2_050", "edgenext_xx_small"])
def test_imagenet_weights_fill_the_backbone_and_leave_the_head_random(name: str) -> None:
    """Defect 2 of the origin. EdgeNeXt's backbone has layers called `head.norm`: they are backbone all the same."""
    source, model = build_timm(1, name), build_small(0, name)
    head = state_of(model.head)  # type: ignore[arg-type]
    with torch.no_grad():
        for p in source.parameters():
            p.add_(0.25)
    line = load_weights(model, source.state_dict(), where="imagenet", needs_head=False)
    assert "the head starts from random weights" in line
    backbone = {key: value for key, value in source.state_dict().items() if key in model.backbone.state_dict()}  # type: ignore
    assert are_equal(model.backbone.state_dict(), backbone)  # type: ignore[union-attr]
    assert are_equal(model.head.state_dict(), head)  # type: ignore[union-attr]


def test_a_backbone_layer_called_head_may_not_be_missing() -> None:
    source = {k: v for k, v in build_timm(1, "edgenext_xx_small").state_dict().items() if "head.norm" not in k}
    with pytest.raises(UserError, match=r"backbone\.head\.norm\.weight"):
        load_weights(build_small(0, "edgenext_xx_small"), source, where="file", needs_head=False)


def test_an_imagenet_file_of_the_other_library_fills_an_efficientnet_student() -> None:
    net = EfficientNet.from_name("efficientnet-b4", num_classes=1000)
    student = build_classifier(EFFICIENTNET_B4, classes=2, dropout=0.3)
    line = load_weights(student, net.state_dict(), where="b4", needs_head=False)
    assert "2 missing" in line
    assert "the head starts from random weights" in line
    assert torch.equal(student.net._conv_stem.weight, net._conv_stem.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("head.1.weight", True),
        ("net._fc.bias", True),
        ("module.classifier.weight", True),
        ("head.fc.weight", True),
        ("backbone.head.norm.weight", False),
        ("backbone.stem.weight", False),
        ("net._blocks.0._bn0.weight", False),
    ],
)
def test_the_head_is_distinguished_from_the_backbone(key: str, expected: bool) -> None:
    assert is_head(key) == expected


# --- What is refused ------------------------------------------------------------------------------------------------


def refuse(model: nn.Module, tensors: dict[str, Tensor], *, needs_head: bool = True) -> str:
    before = state_of(model)
    with pytest.raises(UserError) as caught:
        load_weights(model, tensors, where="file.pth", needs_head=needs_head)
    assert are_equal(state_of(model), before)
    return caught.value.as_text()


def test_weights_of_another_architecture_are_refused_with_keys_of_both_sides() -> None:
    text = refuse(build_small(0), state_of(build_small(1, OTHER)))
    assert "nothing was loaded" in text
    assert "matched" in text
    assert "missing" in text
    assert "unexpected" in text
    assert "backbone.conv1.0.weight" in text or "backbone.conv1" in text  # ours
    assert "backbone.conv_stem.weight" in text  # the file's
    assert "--allow partial-weights" in text


def test_a_file_that_matches_nothing_is_refused_even_where_partial_weights_are_allowed() -> None:
    model = build_small(0)
    before = state_of(model)
    with pytest.raises(UserError, match="0 tensors matched"):
        load_weights(model, {"a": torch.zeros(1), "b": torch.zeros(2)}, where="f", needs_head=False, allow_partial=True)
    assert are_equal(state_of(model), before)


def test_one_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    tensors = state_of(build_small(1))
    key = next(key for key in tensors if key.endswith("weight"))
    tensors[key] = torch.zeros(1, 2, 3)
    text = refuse(build_small(0), tensors, needs_head=False)
    assert f"{key}: wanted {tuple(build_small(0).state_dict()[key].shape)}, file has (1, 2, 3)" in text


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_one_tensor_too_few_or_too_many_in_the_backbone_is_refused(change: str) -> None:
    tensors = state_of(build_small(1))
    if change == "missing":
        del tensors["backbone.bn1.running_mean" if "backbone.bn1.running_mean" in tensors else list(tensors)[3]]
    else:
        tensors["backbone.layer9.weight"] = torch.zeros(3)
    text = refuse(build_small(0), tensors)
    assert ("1 missing" if change == "missing" else "1 unexpected") in text


def test_a_teacher_without_its_head_is_refused() -> None:
    """A random head teaches noise."""
    headless = {key: value for key, value in state_of(build_small(1)).items() if not key.startswith("head.")}
    assert "head.1.weight" in refuse(build_small(0), headless)
    thousand = state_of(build_small(1, classes=1000))
    assert "wanted (2, 96), file has (1000, 96)" in refuse(build_small(0), thousand)


def test_half_a_head_is_not_taken() -> None:
    model, tensors = build_small(0), state_of(build_small(1))
    tensors["head.1.bias"] = torch.zeros(1000)
    before = state_of(model)
    load_weights(model, tensors, where="f", needs_head=False)
    assert torch.equal(model.state_dict()["head.1.weight"], before["head.1.weight"])
    assert torch.equal(model.state_dict()["head.1.bias"], before["head.1.bias"])


def test_partial_weights_are_taken_where_allowed_and_the_line_counts_what_is_missing() -> None:
    model, tensors = build_small(0), state_of(build_small(1))
    dropped = next(key for key in tensors if "layer4" in key or "layer3" in key)
    kept = model.state_dict()[dropped].clone()
    del tensors[dropped]
    line = load_weights(model, tensors, where="f", needs_head=True, allow_partial=True)
    assert "1 missing" in line
    assert torch.equal(model.state_dict()[dropped], kept)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in tensors.items())


class Payload:
    """A pickle that would leave a mark if anything ran it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.mark, "ran")


def write_bad_files(folder: Path) -> dict[str, Path]:
    good = folder / "good.pth"
    torch.save({"model": state_of(build_small(1))}, good)
    whole = good.read_bytes()
    contents = {
        "truncated": whole[: len(whole) // 2],
        "half a header": whole[:3],
        "html": b"<!DOCTYPE html><html><body>Sign in to download</body></html>",
        "empty": b"",
        "plain pickle with code": pickle.dumps({"model": Payload(folder / "mark")}),
        "pointer of git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
    }
    paths = {name: folder / f"{i}.pth" for i, name in enumerate(contents)}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    for name, value in {
        "archive with code": {"model": Payload(folder / "mark")},
        "no tensors": {"model": {"epoch": 3}},
        "a list": [torch.zeros(3)],
        "a tensor": torch.zeros(3),
    }.items():
        paths[name] = folder / f"{name.replace(' ', '_')}.pth"
        torch.save(value, paths[name])
    paths["safetensors"] = folder / "cut.safetensors"
    paths["safetensors"].write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{broken")
    return paths


def test_broken_foreign_and_hostile_files_are_refused_by_name_and_nothing_in_them_runs(tmp_path: Path) -> None:
    for name, path in write_bad_files(tmp_path).items():
        with pytest.raises(UserError) as caught:
            read_tensors(path)
        text = caught.value.as_text()
        assert path.name in text, name
        assert "remedy" in text, name
        assert "weights_only=False" not in text, name
    assert not (tmp_path / "mark").exists()


def test_a_missing_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_tensors(tmp_path / "absent.pth")


# --- Which file a pattern means -------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "output"


PATTERN = "output/pretrain_*/weights/best_model.pth"


def run_path(runs: Path, run: str) -> Path:
    return runs / f"pretrain_{run}" / "weights" / "best_model.pth"


def test_a_pattern_means_the_newest_file_that_fits(runs: Path) -> None:
    """Defect 5 of the origin: the pattern was never expanded. The newer run of another student is passed over."""
    for run, name, time_s in (("a", SMALL, 100), ("b", SMALL, 300), ("c", SMALL, 200), ("d", OTHER, 400)):
        save_run(run_path(runs, run), name=name, time_s=time_s)
    path, notes = find_fitting_weights(PATTERN, build_small(0), key="pretrained_student_weights")
    assert path == Path("output/pretrain_b/weights/best_model.pth")
    assert len(notes) == 1
    assert "(of 4 that" in notes[0]
    assert str(path) in notes[0]


def test_the_name_decides_between_files_of_the_same_second(runs: Path) -> None:
    for run in ("x_11_02_10_00_00", "x_11_02_10_00_01", "x_11_01_23_59_59"):
        save_run(run_path(runs, run), time_s=500)
    path, _ = find_fitting_weights(PATTERN, build_small(0), key="k")
    assert "11_02_10_00_01" in str(path)


def test_runs_are_never_ranked_by_their_auc(runs: Path) -> None:
    for auc, time_s in (("0.9900", 100), ("0.5100", 200)):
        save_run(runs / "pretrain_a" / "weights" / f"3_{auc}_val.pth", time_s=time_s)
    path, _ = find_fitting_weights("output/*/weights/*_val.pth", build_small(0), key="k")
    assert path.name == "3_0.5100_val.pth"


def test_a_damaged_newest_file_is_passed_over(runs: Path) -> None:
    save_run(run_path(runs, "good"), time_s=100)
    bad = save_run(run_path(runs, "bad"), time_s=200)
    bad.write_bytes(bad.read_bytes()[:1000])
    assert "good" in str(find_fitting_weights(PATTERN, build_small(0), key="k")[0])


def test_when_nothing_fits_every_candidate_is_listed_with_the_reason(runs: Path) -> None:
    save_run(run_path(runs, "other"), name=OTHER)
    run_path(runs, "html").parent.mkdir(parents=True)
    run_path(runs, "html").write_text("<html>")
    with pytest.raises(UserError) as caught:
        find_fitting_weights(PATTERN, build_small(0), key="pretrained_student_weights")
    text = caught.value.as_text()
    assert "no matching file fits the model" in text
    assert "pretrain_other" in text
    assert "matched" in text
    assert "pretrain_html" in text
    assert "train_student_only.py" in text


def test_when_nothing_matches_the_neighbours_are_listed(runs: Path) -> None:
    (runs / "distill_of_yesterday").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        find_fitting_weights(PATTERN, build_small(0), key="pretrained_student_weights")
    text = caught.value.as_text()
    assert "no file matches" in text
    assert "distill_of_yesterday" in text
    assert PATTERN in text


@pytest.mark.usefixtures("runs")
def test_when_there_is_no_folder_at_all_the_message_still_comes() -> None:
    with pytest.raises(UserError, match="no file matches"):
        find_fitting_weights("nowhere/*/x.pth", build_small(0), key="k")


@pytest.mark.usefixtures("runs")
def test_a_pattern_that_python_cannot_read_is_the_users_error() -> None:
    with pytest.raises(UserError, match="k = "):
        find_fitting_weights("output/**best/x.pth", build_small(0), key="k")


def test_an_absolute_pattern_works(runs: Path) -> None:
    saved = save_run(run_path(runs, "a"))
    assert find_fitting_weights(str(runs.parent / PATTERN), build_small(0), key="k")[0] == saved


def test_a_plain_path_is_taken_as_it_is_even_with_brackets_in_it(runs: Path) -> None:
    assert find_fitting_weights("weights/FFc23.tar", build_small(0), key="k") == (Path("weights/FFc23.tar"), [])
    saved = save_run(runs / "run [final]" / "best.pth")
    assert find_fitting_weights(str(saved), build_small(0), key="k") == (saved, [])


# --- Other libraries' names -----------------------------------------------------------------------------------------


def test_tensors_of_another_library_are_renamed_by_their_order() -> None:
    wanted = build_timm(1).state_dict()
    foreign = {f"layer_{i}": value for i, value in enumerate(wanted.values())}
    assert are_equal(rename_by_order(foreign, SMALL), wanted)


def test_renaming_refuses_another_number_or_order_of_shapes() -> None:
    foreign = dict(build_timm(1).state_dict())
    foreign.popitem()
    with pytest.raises(ValueError, match="in order"):
        rename_by_order(foreign, SMALL)


def test_matching_loads_nothing() -> None:
    model = build_small(0)
    before = state_of(model)
    match = match_tensors(model, build_small(1).state_dict())
    assert not match.missing
    assert are_equal(state_of(model), before)


# --- Forms of other programs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_form_of_deepfakebench_loads_in_full(tmp_path: Path, prefix: str) -> None:
    """Its trunk has no `_fc`; the head is a layer of its own beside it."""
    source = build_classifier(EFFICIENTNET_B4, classes=2, dropout=None)
    tensors = {
        f"{prefix}backbone.last_layer.{key.split('_fc.')[1]}" if "_fc." in key
        else f"{prefix}backbone.efficientnet.{key.removeprefix('net.')}": value
        for key, value in source.state_dict().items()
    }  # fmt: skip
    assert f"{prefix}backbone.efficientnet._blocks.31._bn2.bias" in tensors
    path = tmp_path / "effnb4_best.pth"
    torch.save(tensors, path)
    with torch.random.fork_rng():
        torch.manual_seed(8)
        model = build_classifier(EFFICIENTNET_B4, classes=2, dropout=None)
    line = load_weights(model, read_tensors(path), where="w", needs_head=True)
    assert line == f"w: {len(tensors)} tensors matched, 0 missing, 0 unexpected"
    assert are_equal(model.state_dict(), source.state_dict())


def test_the_form_of_deepfakebench_without_its_head_is_refused() -> None:
    model = build_classifier(EFFICIENTNET_B4, classes=2, dropout=None)
    tensors = {
        f"backbone.efficientnet.{key.removeprefix('net.')}": value
        for key, value in model.state_dict().items()
        if "_fc" not in key
    }
    with pytest.raises(UserError, match="2 missing, 0 unexpected"):
        load_weights(model, tensors, where="w", needs_head=True)


@pytest.mark.parametrize("prefix", ["student.", "model.", "module.", "module.student.", "model.student."])
def test_checkpoints_of_whole_training_programs_load_in_full(tmp_path: Path, prefix: str) -> None:
    tensors = {f"{prefix}{key}": value for key, value in build_small(2).state_dict().items()}
    torch.save({"model_state_dict": tensors, "epoch": 3, "val_auc": 0.9}, tmp_path / "3_0.9000_val.pth")
    model = build_small(0)
    line = load_weights(model, read_tensors(tmp_path / "3_0.9000_val.pth"), where="w", needs_head=True)
    assert line == f"w: {len(tensors)} tensors matched, 0 missing, 0 unexpected"
    assert are_equal(model.state_dict(), build_small(2).state_dict())


@pytest.mark.parametrize("name", [SMALL, OTHER, "mobilenetv3_small_050", "test_vit", "test_convnext"])
def test_a_head_that_another_library_calls_otherwise_is_taken_where_it_fits(name: str) -> None:
    """timm's own fine-tuned checkpoint of two classes: `fc`, `classifier`, `head` or `head.fc`."""
    import timm

    source = timm.create_model(name, num_classes=2)
    model = build_small(0, name)
    line = load_weights(model, source.state_dict(), where="w", needs_head=True)
    assert line == f"w: {len(source.state_dict())} tensors matched, 0 missing, 0 unexpected"
    assert torch.equal(model.head[1].weight, source.get_classifier().weight)  # type: ignore[index, union-attr]
    assert torch.equal(model.head[1].bias, source.get_classifier().bias)  # type: ignore[index, union-attr]


def test_half_a_head_of_another_name_is_not_taken() -> None:
    tensors = dict(build_small(1).state_dict())
    tensors["fc.weight"] = tensors.pop("head.1.weight")
    del tensors["head.1.bias"]
    with pytest.raises(UserError, match="2 missing"):
        load_weights(build_small(0), tensors, where="w", needs_head=True)


def test_the_classes_of_a_files_head_are_counted() -> None:
    assert count_head_classes(build_timm(1).state_dict()) == 1000
    assert count_head_classes(build_small(1, classes=3).state_dict()) == 3
    assert count_head_classes(build_classifier(EFFICIENTNET_B4, classes=5, dropout=None).state_dict()) == 5
    assert count_head_classes({"backbone.last_layer.weight": torch.zeros(4, 7)}) == 4
    assert count_head_classes({"conv.weight": torch.zeros(4, 7)}) is None


# --- The hash -------------------------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """Tensors of several kinds: a bf16 matrix, a scalar counter, an empty one."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.arange(6, dtype=torch.bfloat16).reshape(2, 3))
        self.register_buffer("counter", torch.tensor(7))
        self.register_buffer("empty", torch.zeros(0, 3))


def test_the_hash_of_weights_is_that_of_equal_weights_in_any_memory_layout() -> None:
    assert compute_weights_hash(Mixed()) == compute_weights_hash(Mixed())
    model = build_small(0)
    before = compute_weights_hash(model)
    assert compute_weights_hash(model.to(memory_format=torch.channels_last)) == before  # type: ignore[call-overload]
    assert len(before) == 64


def test_the_hash_of_weights_notices_name_dtype_shape_value_and_order() -> None:
    def change(edit: Callable[[Mixed], object]) -> str:
        model = Mixed()
        edit(model)
        return compute_weights_hash(model)

    def rename(model: Mixed) -> None:
        model.other = model.matrix
        del model.matrix

    def reorder(model: Mixed) -> None:
        counter = model._buffers.pop("counter")
        model._buffers["counter"] = counter

    hashes = [
        change(lambda model: None),
        change(lambda model: model.matrix.data.view(torch.int16)[1, 2].bitwise_xor_(1)),
        change(lambda model: model.counter.add_(1)),  # type: ignore[operator]
        change(lambda model: setattr(model, "counter", model.counter.to(torch.int32))),
        change(lambda model: setattr(model.matrix, "data", model.matrix.data.reshape(3, 2))),
        change(lambda model: setattr(model, "empty", torch.zeros(0, 4))),
        change(rename),
        change(reorder),
    ]
    assert len(set(hashes)) == len(hashes)
