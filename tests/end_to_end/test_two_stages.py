"""The user's own two command lines on FaceForensics++ in the SBI layout, with a teacher in the form of FFc23.tar."""

from __future__ import annotations

import csv
import json
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ffpp_tree
import pytest
from workplace import SHIPPED, STAGE_1, STAGE_2, Ended, Workplace

LINE_1 = f"{STAGE_1} {SHIPPED} -n pretrain_mobilevit"
LINE_2 = f"{STAGE_2} {SHIPPED} -n run"
STAMP = r"\d\d_\d\d_\d\d_\d\d_\d\d"
TAGS_OF_BOTH = {"train/loss", "train/hard_loss", "train/lr", "train/alpha", "train/grad_norm", "train/skipped_steps"}
TAGS_OF_BOTH |= {"val/auc"}
TAGS_OF_STAGE_2 = {"train/distill_loss", "train/distill_temperature", "train/distill_weight"}
TEACHER_TENSORS = 706  # of EfficientNet-B4 with a two-way head


@dataclass(frozen=True)
class TwoStages:
    """Both commands, done: where, and what each printed."""

    place: Workplace
    first: Ended
    second: Ended

    @property
    def runs(self) -> tuple[Path, Path]:
        return self.place.find_run("pretrain_mobilevit"), self.place.find_run("run")


def run_both(place: Workplace, added: Sequence[str], *, timeout: float) -> TwoStages:
    first = place.run(*LINE_1.split(), *added, timeout=timeout)
    assert first.code == 0, first.out + first.err
    second = place.run(*LINE_2.split(), *added, timeout=timeout)
    assert second.code == 0, second.out + second.err
    return TwoStages(place, first, second)


@pytest.fixture(scope="module")
def small(
    tmp_path_factory: pytest.TempPathFactory, make_sbi_workplace: Callable[[Path], Workplace], narrow_init: Path
) -> TwoStages:
    """At 64 px with a narrow student."""
    place = make_sbi_workplace(tmp_path_factory.mktemp("small"))
    added = f"--set epoch=1 --set batch_size=1 --set student_init={narrow_init}"
    narrow = "--set image_size=64 --set student=mobilevitv2_050"
    return run_both(place, [*added.split(), *narrow.split()], timeout=200)


def test_each_stage_leaves_its_files_in_a_folder_named_after_run_config_and_time(small: TwoStages) -> None:
    for run, name in zip(small.runs, ("pretrain_mobilevit", "run"), strict=True):
        check_run_folder(run, name)


def check_run_folder(run: Path, name: str) -> None:
    assert re.fullmatch(rf"{name}_config_SBI_{STAMP}", run.name)
    weights = {path.name for path in (run / "weights").iterdir()}
    (epoch_file,) = [path for path in weights if re.fullmatch(r"1_[01]\.\d{4}_val\.pth", path)]
    assert {epoch_file, "best_model.pth", "last.pth"} <= weights
    assert {f"{path}.json" for path in weights if path.endswith(".pth")} <= weights
    about = json.loads((run / "weights" / f"{epoch_file}.json").read_text())["about"]
    assert epoch_file == f"1_{about['val_auc']:.4f}_val.pth"
    for picture in ("first_batch.png", "curves.png"):
        width, height = struct.unpack(">II", (run / "logs" / picture).read_bytes()[16:24])
        assert min(width, height) > 50
    with open(run / "logs/metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["val_auc"]) == about["val_auc"]
    assert "Epoch 1/1 | " in (run / "logs/losses.logs").read_text()
    assert json.loads((run / "config.json").read_text())["name"] == name
    assert "torch" in (run / "environment.json").read_text()


def test_tensorboard_has_the_promised_tags(small: TwoStages) -> None:
    first, second = (read_scalars(run) for run in small.runs)
    assert set(first) >= TAGS_OF_BOTH
    assert set(second) >= TAGS_OF_BOTH | TAGS_OF_STAGE_2
    assert not TAGS_OF_STAGE_2 & set(first)
    assert set(first["train/alpha"]) == {1.0}
    assert second["train/alpha"] == pytest.approx([0.95] * len(second["train/alpha"]))
    assert set(second["train/distill_temperature"]) == {3.0}
    assert set(second["train/skipped_steps"]) == {0.0}
    assert first["train/lr"][0] == pytest.approx(2 * second["train/lr"][0])


def read_scalars(run: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "logs/tensorboard"))
    events.Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_usable_frame_of_the_split_is_taken_and_no_other(small: TwoStages) -> None:
    for ended in (small.first, small.second):
        assert "data (ffpp) train: 8 frames of 4 clips (c23)" in ended.out
        assert "data (ffpp) validation: 4 frames of 2 clips (c23)" in ended.out
        assert "left out" not in ended.out


def test_stage_1_opens_neither_the_teacher_nor_stage_1_weights(small: TwoStages) -> None:
    assert "teacher" not in small.first.out.split("Next, stage 2")[0]
    assert "pretrained_student_weights" not in small.first.out.split("Next, stage 2")[0]


def test_stage_2_finds_stage_1_through_the_shipped_glob_and_says_so(small: TwoStages) -> None:
    best = f"output/{small.runs[0].name}/weights/best_model.pth"
    assert f"took the newest that fits, {best}" in small.second.out
    assert re.search(rf"student {best}: \d+ tensors matched, 0 missing, 0 unexpected", small.second.out)


def test_the_teachers_line_counts_all_its_tensors(small: TwoStages) -> None:
    counted = f"teacher weights/FFc23.tar: {TEACHER_TENSORS} tensors matched, 0 missing, 0 unexpected"
    assert counted in small.second.out


def test_stage_2_starts_at_the_auc_that_stage_1_ended_with(small: TwoStages) -> None:
    about = json.loads((small.runs[0] / "weights/best_model.pth.json").read_text())["about"]
    assert f"before stage 2: val_auc {about['val_auc']:.4f}" in small.second.out


def test_the_log_says_that_stage_2_takes_smaller_batches(small: TwoStages) -> None:
    assert "stage 2 takes batches of 1 sample: max(1, 1 // 4) of the flat batch_size" in small.second.out
    assert "stage 2 takes batches" in (small.runs[1] / "logs/losses.logs").read_text()


def test_both_stages_end_with_advice_on_what_to_do_next(small: TwoStages) -> None:
    assert f"python {STAGE_2} {SHIPPED} -n run" in small.first.out
    assert "--set pretrained_student_weights" not in small.first.out  # the config's pattern finds it
    assert "Stage 2 is done" in small.second.out
    assert "Against stage 1" in small.second.out


def test_checkpoints_hold_the_student_alone_and_load_without_running_code(small: TwoStages) -> None:
    import torch

    for run in small.runs:
        tensors = torch.load(run / "weights/best_model.pth", weights_only=True)["model"]
        assert {name.split(".")[0] for name in tensors} == {"backbone", "head"}
        assert tensors["head.1.weight"].shape[0] == 2
        assert len(tensors) == 269
        resumable = torch.load(run / "weights/last.pth", weights_only=True)
        assert set(resumable) == {"model", "optimizer", "rng", "about"}
        assert not [name for name in resumable["model"] if "_conv_stem" in name]


def test_stage_2_begins_with_exactly_the_weights_of_stage_1(small: TwoStages, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from sharpstudent.train.step import TrainStep

    seen: list[dict[str, torch.Tensor]] = []
    take = TrainStep.__call__

    def note_and_take(self: TrainStep, *args: object) -> object:
        seen.append({name: value.clone() for name, value in self.student.state_dict().items()})
        return take(self, *args)

    monkeypatch.setattr(TrainStep, "__call__", note_and_take)
    before = small.place.list_output()
    done = small.place.call(*LINE_2.split(), "--dry-run", "--set", "image_size=64", "--set", "student=mobilevitv2_050")
    assert done.code == 0, done.err
    assert re.search(
        r"dry run: batch image \(8, 3, 64, 64\), step ok, loss [\d.]+ \(hard [\d.]+, kd [\d.]+\)", done.out
    )
    assert small.place.list_output() == before
    stored = torch.load(small.runs[0] / "weights/best_model.pth", weights_only=True)["model"]
    assert len(seen) == 1
    assert seen[0].keys() == stored.keys()
    assert all(seen[0][name].equal(stored[name]) for name in stored)


@pytest.mark.slow
def test_both_lines_run_at_380_px_with_the_shipped_student(tmp_path: Path, teacher_file: Path) -> None:
    place = Workplace(tmp_path)
    ffpp_tree.build_tree(tmp_path / "data/FaceForensics++", train_clips=2, val_clips=2, frames=1)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/FFc23.tar").symlink_to(teacher_file)
    init = ffpp_tree.write_student_init(tmp_path / "init.pth", "mobilevitv2_200")
    added = f"--set epoch=1 --set batch_size=1 --set student_init={init}"
    done = run_both(place, added.split(), timeout=900)
    for run, name in zip(done.runs, ("pretrain_mobilevit", "run"), strict=True):
        check_run_folder(run, name)
    assert f"{TEACHER_TENSORS} tensors matched, 0 missing" in done.second.out
    assert set(read_scalars(done.runs[1])) >= TAGS_OF_BOTH | TAGS_OF_STAGE_2
