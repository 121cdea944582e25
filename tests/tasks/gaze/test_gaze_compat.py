"""The commands that the seed document prints, on trees of true form; models have their names, and narrow backbones."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from gaze_trees import make_gazefollow, make_vat
from safetensors.torch import load_file, save_file
from sharpstudent.core.types import ModelSpec
from sharpstudent.tasks.gaze import backbones
from sharpstudent.tasks.gaze.model import build_positions
from sharpstudent.tasks.gaze.task import GazeTask
from workplace import ROOT, Ended, Workplace

# As the document prints them; the first test below compares them with its own text where that is at hand.
PRINTED = (
    "uv run python scripts/train_gazefollow.py --model_name gazelle_dinov3_vit_tiny "
    "--distill_teacher gazelle_dinov3_vits16plus --distill_weight 0.3 --distill_temp_end 4.0",
    "uv run python scripts/train_vat.py --model gazelle_dinov3_vit_tinyplus "
    "--distill_teacher gazelle_dinov3_vits16plus --distill_weight 0.3 --distill_temp_end 4.0",
)
SEEDS = Path(os.environ.get("SHARED_SEEDS", ROOT.parent / "shared" / "seeds"))
SIDE = 32


def list_commands(text: str) -> list[str]:
    """The commands in the fenced blocks of a document, each on one line."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def test_the_commands_are_those_of_the_document() -> None:
    documents = sorted(SEEDS.glob("000_*.txt"))
    if not documents:
        pytest.skip(f"the seed documents are not at hand ({SEEDS}); SHARED_SEEDS names another folder")
    assert list_commands(documents[0].read_text(encoding="utf-8")) == list(PRINTED)


def write_teacher(path: Path, cell: tuple[float, float], *, whole: bool = True) -> None:
    """A file in the published form whose maps peak at one place of every picture: better than a new head."""
    torch.manual_seed(0)
    model = GazeTask().build_teacher(ModelSpec("gazelle_dinov3_vits16plus"))
    head = model.head
    with torch.no_grad():
        for block in head.transformer:
            for last in (block.attn.proj, block.mlp.fc2):
                last.weight.zero_(), last.bias.zero_()
        head.linear.weight.zero_(), head.linear.bias.zero_(), head.head_token.weight.zero_()
        places = build_positions(256, 2, 2)
        wanted = places[:, int(cell[1] * 2), int(cell[0] * 2)] - places.flatten(1).mean(1)
        up, out = head.heatmap_head
        up.weight.copy_(torch.eye(256)[:, :, None, None].expand(-1, -1, 2, 2)), up.bias.zero_()
        out.weight.copy_(wanted[None])
    tensors = {key.removeprefix("head."): one for key, one in model.state_dict().items()}
    torch.save({key: one for key, one in tensors.items() if whole or not key.startswith("backbone")}, path)


def write_backbone(path: Path, name: str) -> None:
    model = GazeTask().build_student(ModelSpec(name))
    save_file({key.removeprefix("net."): one.contiguous() for key, one in model.backbone.state_dict().items()}, path)


@contextlib.contextmanager
def prepare(folder: Path, *, narrow: bool) -> Generator[Workplace]:
    """A folder with data, a teacher and backbones, for models of 32 pixels, with narrow backbones or their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "SMALL_SIDE", SIDE)
        timm = {name: ("test_vit" if narrow else one, SIDE) for name, (one, _) in backbones.NAMED.items()}
        patch.setattr(backbones, "NAMED", timm)
        if narrow:
            patch.setattr(backbones, "SMALL", dict.fromkeys(backbones.SMALL, (32, 2)))
        place = Workplace(folder)
        make_gazefollow(folder / "data" / "gazefollow_extended", train=6, test=1)
        make_vat(folder / "data" / "videoattentiontarget", shows=2, frames=8)
        for name in ("ckpts", "weights"):
            (folder / name).mkdir()
        write_teacher(folder / "ckpts" / "gazelle_dinov3_vits16plus.pt", (0.6, 0.6))
        for small in ("dinov3_vit_tiny", "dinov3_vit_tinyplus"):
            write_backbone(folder / "weights" / f"{small}.imagenet.safetensors", f"gazelle_{small}")
        yield place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    with prepare(tmp_path_factory.mktemp("compat"), narrow=True) as made:
        yield made


# The defaults are 15 and 8 epochs, batches of 60, and 8 processes.
SHORT = ("--max_epochs", "1", "--batch_size", "2", "--n_workers", "0")


def call(place: Workplace, printed: str, *more: str) -> Ended:
    words = shlex.split(printed.removeprefix("uv run python "))
    return place.call(f"compat/gaze/{words[0]}", *words[1:], *SHORT, *more)


@pytest.fixture(scope="module")
def distilled(place: Workplace) -> list[Ended]:
    """What the printed commands say; the runs are train_gazefollow and train_vat."""
    return [call(place, printed) for printed in PRINTED]


@pytest.mark.parametrize("number", [0, 1])
def test_a_printed_command_distils(distilled: list[Ended], number: int) -> None:
    assert distilled[number].code == 0, distilled[number].err
    assert "teacher gazelle_dinov3_vits16plus, weight 0.3, temperature 1 -> 4" in distilled[number].out


def test_a_run_logs_the_distillation_step_by_step(place: Workplace, distilled: list[Ended]) -> None:
    from sharpstudent.report.logs import MetricsFile
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = place.folder.glob("experiments/train_gazefollow_*")
    events = EventAccumulator(str(run / "logs/tensorboard"))
    events.Reload()
    temperatures = [event.value for event in events.Scalars("train/distill_temperature")]
    assert (temperatures[0], temperatures[-1]) == (1.0, 4.0)
    assert len(events.Scalars("train/distill_loss")) == len(temperatures)
    (row,) = MetricsFile(run / "logs" / "metrics.csv").read()
    assert float(row["kd_hard_ratio"]) > 0


def test_another_teacher_under_autocast_and_a_backbone_that_learns(place: Workplace) -> None:
    file = ("--distill_teacher_ckpt", "ckpts/gazelle_dinov3_vits16plus.pt")
    words = ("--distill_teacher", "gazelle_dinov3_vitb16", *file, "--use_amp", "--finetune")
    ended = call(place, PRINTED[0], *words, "--backbone_lr", "1e-4", "--exp_name", "whole")
    assert ended.code == 0, ended.err
    whole, before = read_weights(place, "whole"), load_file(place / "weights/dinov3_vit_tiny.imagenet.safetensors")
    learnt = {key: whole[f"backbone.net.{key}"] for key in before}
    assert any(not torch.equal(one, before[key]) for key, one in learnt.items())


@pytest.mark.slow
@pytest.mark.parametrize("printed", PRINTED)
def test_a_printed_command_distils_with_the_backbones_of_its_names(tmp_path: Path, printed: str) -> None:
    with prepare(tmp_path, narrow=False) as place:
        ended = call(place, printed)
    assert ended.code == 0, ended.err


def read_weights(place: Workplace, name: str) -> dict[str, torch.Tensor]:
    from sharpstudent.models.weight_files import read_tensors

    (file,) = place.folder.glob(f"experiments/{name}_*/weights/best_model.pth")
    return read_tensors(file)


def test_weight_0_is_no_flag_to_the_bit_and_builds_no_teacher(place: Workplace) -> None:
    plain = "scripts/train_gazefollow.py --model_name gazelle_test_vit --backbone_weights random"
    for name, words in (("none", ()), ("zero", ("--distill_weight", "0"))):
        ended = call(place, plain, "--exp_name", name, *words)
        assert ended.code == 0, ended.err
        assert "distillation: disabled" in ended.out
        assert "teacher ckpts" not in ended.out
    none, zero = read_weights(place, "none"), read_weights(place, "zero")
    assert none.keys() == zero.keys()
    assert all(torch.equal(none[key], zero[key]) for key in none)


@pytest.mark.parametrize("script", ["train_gazefollow.py", "train_vat.py"])
def test_help_lists_the_flags_of_distillation_with_their_defaults(place: Workplace, script: str) -> None:
    shown = " ".join(place.call(f"compat/gaze/scripts/{script}", "--help").out.split())
    for flag in ("--distill_teacher ", "--distill_weight ", "--distill_temp_start ", "--distill_temp_end "):
        assert flag in shown
    assert "--distill_teacher_ckpt" in shown
    for default in ("(gazelle_dinov3_vits16plus)", "at the first step (1.0)", "at the last step (4.0)"):
        assert default in shown


def test_a_name_is_looked_up_in_ckpts(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "compat" / "gaze"))
    import gaze_flags

    monkeypatch.chdir(place.folder)
    for name in gaze_flags.CURATED:
        path = place / f"ckpts/{name}.pt"
        if not path.exists():
            torch.save({"backbone.net.x": torch.zeros(1)}, path)
        read = gaze_flags.build_parser(gaze_flags.Script("x", "gazefollow", "m", "d", 1e-3, 1, "min_l2"))
        found = gaze_flags.find_teacher(read.read(["--distill_teacher", name]))
        assert found == {"model": name, "weights": f"ckpts/{name}.pt"}
        if name != "gazelle_dinov3_vits16plus":
            path.unlink()


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ("gazelle_dinov3_vitb16", ("ckpts/gazelle_dinov3_vitb16.pt", "--distill_teacher_ckpt")),
        ("gazelle_resnet18", ("has no curated file", "--distill_teacher_ckpt")),
    ],
)
def test_a_teacher_without_a_file_ends_with_exit_code_2(place: Workplace, teacher: str, words: tuple[str, ...]) -> None:
    ended = call(place, f"scripts/train_gazefollow.py --distill_weight 0.3 --distill_teacher {teacher}")
    assert ended.code == 2
    assert all(word in ended.err for word in words)


def test_a_rate_of_a_frozen_backbone_is_refused(place: Workplace) -> None:
    ended = call(place, "scripts/train_gazefollow.py --backbone_lr 1e-4")
    assert ended.code == 2
    assert "add --finetune" in ended.err


def test_a_teacher_that_guesses_is_refused(place: Workplace) -> None:
    write_teacher(place / "guess.pt", (0.0, 0.0))
    ended = call(place, PRINTED[0], "--exp_name", "guess", "--distill_teacher_ckpt", "guess.pt")
    assert ended.code == 2
    assert "guesses" in ended.err
    assert "--allow weak-teacher" in ended.err


def test_files_without_a_backbone_load_with_a_warning(place: Workplace) -> None:
    write_teacher(place / "heads.pt", (0.6, 0.6), whole=False)
    write_backbone(place / "weights/test_vit.imagenet.safetensors", "gazelle_dinov3_vits16plus")
    ended = call(place, PRINTED[0], "--exp_name", "heads", "--distill_teacher_ckpt", "heads.pt")
    assert ended.code == 0, ended.err
    assert "warning: heads.pt has no tensors of the backbone" in ended.out


def test_a_resumed_run_has_its_own_flags_and_warns_of_others(place: Workplace, distilled: list[Ended]) -> None:
    (run,) = place.folder.glob("experiments/train_gazefollow_*")
    ended = call(place, f"scripts/train_gazefollow.py --resume {run} --distill_weight 0.9 --distill_temp_end 4.0")
    assert ended.code == 0, ended.err
    assert "warning: --distill_weight 0.9 is not used: the run has 0.3" in ended.out
    assert "--distill_temp_end 4.0 is not used" not in ended.out


def test_a_student_of_the_teachers_architecture_is_warned_of(place: Workplace) -> None:
    same = f"{PRINTED[0]} --model_name gazelle_dinov3_vits16plus --exp_name same"
    assert "the same architecture" in call(place, same).out
