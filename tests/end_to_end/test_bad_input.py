"""Errors of users and failures of the environment: one clear message, an exit code, no traceback."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import ffpp_tree
import numpy as np
import pytest
from workplace import SHIPPED, STAGE_1, STAGE_2, Ended, Workplace

CONFIG = "configs/tiny.json"
STEPS_PER_EPOCH = 8
BOTH = pytest.mark.parametrize("script", [STAGE_1, STAGE_2])
# Stage 2 without stage 1, for the tests that are about something else.
ALONE = ("--set", "pretrained_student_weights=null", "--allow", "unpretrained-student")


def assert_refused(ended: Ended, *words: str) -> None:
    """Exit code 2, one message on standard error with all the words, no traceback."""
    assert ended.code == 2, ended.out + ended.err
    assert ended.err.count("error:") == 1
    assert "Traceback" not in ended.out + ended.err
    for word in words:
        assert word in ended.err, f"{word!r} is not in\n{ended.err}"


# The command line and the config: no torch, so each command takes a fraction of a second.


@BOTH
def test_a_missing_config_is_named_with_those_that_exist(workplace: Workplace, script: str) -> None:
    assert_refused(workplace.call(script, "configs/nope.json", "-n", "x"), "configs/nope.json", SHIPPED)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"lr": 0.1,, }', ("line 1",)),
        ('{"lr": 0.1', ("line 1",)),
        ("", ("empty",)),
        ('["lr"]', ("{",)),
        ('{"epcoh": 3}', ("epcoh", 'did you mean "epoch"?')),
        ('{"batch_size": "16"}', ("batch_size", "a whole number", '"batch_size": 16')),
        ('{"lr": -1}', ("lr", "above 0")),
        ('{"alpha": 0.7}', ("alpha", "HARD", "TEACHER", '"alpha_end": 0.7', '"alpha_end": 0.3')),
        ('{"epcoh": 3, "batch_size": "16", "alpha": 0.7}', ("epcoh", "batch_size", "alpha")),
    ],
)
def test_an_invalid_config_is_refused_with_the_remedy(workplace: Workplace, text: str, words: tuple[str, ...]) -> None:
    (workplace / "configs/mine.json").write_text(text)
    assert_refused(workplace.call(STAGE_2, "configs/mine.json", "-n", "x"), *words)
    assert not (workplace / "output").exists()


def test_a_bare_alpha_is_refused_on_the_command_line_too(workplace: Workplace) -> None:
    assert_refused(workplace.call(STAGE_2, SHIPPED, "-n", "x", "--set", "alpha=0.7"), "HARD", "TEACHER")


@BOTH
def test_help_explains_every_option_and_exit_code(workplace: Workplace, script: str) -> None:
    ended = workplace.run(script, "--help")
    assert ended.code == 0
    for word in ("CONFIG", "--set", "--resume", "--dry-run", "--print-config", "--allow", "130, 143", "examples:"):
        assert word in ended.out


@BOTH
def test_print_config_opens_neither_data_nor_weights(workplace: Workplace, script: str) -> None:
    for name in (
        "weights/FFc23.tar",
        "data/FaceForensics++/train.json",
        "output/pretrain_mobilevit_x/weights/best_model.pth",
    ):
        (workplace / name).parent.mkdir(parents=True)
        os.mkfifo(workplace / name)  # whoever opens one of these waits for ever
    ended = workplace.run(script, SHIPPED, "--print-config")
    assert ended.code == 0, ended.err
    assert ('"teachers": []' in ended.out) == (script == STAGE_1)
    assert ("| 16-20 | 0.65" in ended.out) == (script == STAGE_2)
    assert sorted(path.name for path in (workplace / "output").iterdir()) == ["pretrain_mobilevit_x"]


# Data and weights that are not there.


def test_everything_that_is_missing_is_named_in_one_message_as_a_user_sees_it(workplace: Workplace) -> None:
    ended = workplace.run(STAGE_2, SHIPPED, "-n", "run")
    frames = "data/FaceForensics++/original_sequences/youtube/c23"
    paths = [f"{frames}/{kind}" for kind in ("frames", "landmarks", "retina")]
    paths += ["data/FaceForensics++/train.json", "data/FaceForensics++/val.json"]
    paths += ["weights/FFc23.tar", "output/pretrain_mobilevit_*/weights/best_model.pth"]
    assert_refused(ended, *paths, " demo`", "get FaceForensics++ from its authors", "weights/README.md", STAGE_1)
    assert ended.err.count("get FaceForensics++ from its authors") == 1
    assert not (workplace / "output").exists()


def test_stage_1_needs_data_and_initial_weights_but_no_teacher(workplace: Workplace) -> None:
    ended = workplace.call(STAGE_1, SHIPPED, "-n", "p", "--set", "student_init=nowhere.pth")
    assert_refused(ended, "nowhere.pth", "FaceForensics++", " demo`")
    assert "teacher_weights" not in ended.err
    assert not (workplace / "output").exists()


def test_stage_2_before_stage_1_is_refused_and_lists_what_is_there(tiny: Workplace) -> None:
    (tiny / "output/other_run_11_22_10_00_00").mkdir(parents=True)
    ended = tiny.call(STAGE_2, CONFIG, "-n", "run")
    assert_refused(ended, "output/first_*/weights/best_model.pth", "other_run_11_22_10_00_00", f"python {STAGE_1}")


def test_resuming_an_unknown_run_lists_the_existing_runs(tiny: Workplace) -> None:
    assert_refused(tiny.call(STAGE_1, "--resume", "first"), "--resume first", "no run in output")


# Teacher files.


class _Payload:
    """Unpickled, it would make a folder."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._mark),)


def _write_foreign(path: Path) -> None:
    import torch

    torch.save({"model": {"decoder.weight": torch.zeros(3, 3), "decoder.bias": torch.zeros(3)}}, path)


def _write_payload(path: Path) -> None:
    import torch

    torch.save({"model": {"conv1.weight": torch.zeros(1)}, "extra": _Payload(path.parent / "ran")}, path)


def _write_raw_payload(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Payload(path.parent / "ran")))


def _write_truncated(path: Path) -> None:
    ffpp_tree.write_student_init(path, "test_resnet")
    path.write_bytes(path.read_bytes()[:-5000])


def _write_other_architecture(path: Path) -> None:
    ffpp_tree.write_student_init(path, "test_vit")


def _write_without_head(path: Path) -> None:
    ffpp_tree.write_student_init(path, "test_resnet")  # a 1000-class head: of another shape


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (_write_foreign, ("does not fit", "0 tensors matched", "decoder.weight", "backbone.conv1")),
        (_write_payload, ("was refused", "nothing in it was run", "mkdir")),
        (_write_raw_payload, ("was refused", "nothing in it was run")),
        (_write_truncated, ("is cut off", "download it again")),
        (_write_other_architecture, ("does not fit", "missing", "unexpected", "patch_embed")),
        (_write_without_head, ("does not fit", "head.1.weight")),
        (lambda path: path.write_bytes(b""), ("is empty (0 bytes)",)),
        (lambda path: path.write_text("<html>404 not found</html>"), ("is a web page", "download it again")),
        (lambda path: path.mkdir(), ("weights/tiny_teacher.pth",)),
    ],
    ids=["foreign", "code", "raw-code", "truncated", "other-architecture", "other-head", "empty", "web-page", "folder"],
)
def test_an_unusable_teacher_file_is_refused_and_never_runs_code(
    tiny: Workplace, write: Callable[[Path], object], words: tuple[str, ...]
) -> None:
    (tiny / "weights").mkdir()
    write(tiny / "weights/tiny_teacher.pth")
    assert_refused(tiny.call(STAGE_2, CONFIG, "-n", "run", *ALONE), "weights/tiny_teacher.pth", *words)
    assert not (tiny / "weights/ran").exists()
    assert not (tiny / "output").exists()


def test_weights_are_checked_even_when_data_is_missing(tiny: Workplace) -> None:
    (tiny / "weights").mkdir()
    _write_foreign(tiny / "weights/tiny_teacher.pth")
    (tiny / "data/labelled").unlink()
    ended = tiny.call(STAGE_2, CONFIG, "-n", "run", *ALONE)
    assert_refused(ended, "2 problems", "weights/tiny_teacher.pth", "data/labelled")


# Data that is there and wrong.


@pytest.mark.parametrize("source", ["ffpp", "photos", "labelled"])
def test_an_empty_data_folder_is_refused_with_the_layout_it_should_have(tiny: Workplace, source: str) -> None:
    (tiny / "data/empty").mkdir()
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x", "--set", f"data_source={source}", "--set", "data_root=data/empty")
    layout = {"ffpp": "retina", "photos": "ROOT/PERSON/*.jpg", "labelled": "ROOT/real and ROOT/fake"}
    assert_refused(ended, "data/empty", layout[source], " demo`")
    assert not (tiny / "output").exists()


def test_class_folders_without_pictures_are_refused(tiny: Workplace) -> None:
    for name in ("real", "fake"):
        (tiny / "data/hollow" / name).mkdir(parents=True)
    assert_refused(tiny.call(STAGE_1, CONFIG, "-n", "x", "--set", "data_root=data/hollow"), "data/hollow")


def test_a_single_person_is_refused_because_validation_would_be_empty(tiny: Workplace) -> None:
    ffpp_tree.write_photos(tiny / "data/one", people=1)
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x", "--set", "data_source=photos", "--set", "data_root=data/one")
    assert_refused(ended, "one person", "person_00", "at least 2 people")


def test_photos_without_a_face_are_refused_by_name(tiny: Workplace) -> None:
    for person in ("ann", "bob"):
        (tiny / "data/blank" / person).mkdir(parents=True)
        cv2.imwrite(str(tiny / "data/blank" / person / "wall.png"), np.full((200, 200, 3), 128, np.uint8))
    words = ("--set", "data_source=photos", "--set", "data_root=data/blank", "--allow", "shared-people")
    assert_refused(tiny.call(STAGE_1, CONFIG, "-n", "x", *words), "no face", "wall.png", "40 px")
    assert not (tiny / "output").exists()


def _copy_pictures(tiny: Workplace, broken: int) -> list[str]:
    """The labelled faces with some of them cut short; returns their paths below data_root."""
    source = (tiny / "data/labelled").resolve()
    shutil.copytree(source, tiny / "data/mine")
    pictures = sorted((tiny / "data/mine/real").rglob("*.png"))[:broken]
    for picture in pictures:
        picture.write_bytes(picture.read_bytes()[:100])
    return [str(picture.relative_to(tiny / "data/mine")) for picture in pictures]


def test_loader_processes_start_after_face_crops_were_made_in_the_training_process(tiny: Workplace) -> None:
    """OpenCV's threads do not survive a fork: this once hung for ever at the first batch."""
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (31, 31), 5)
    assert tiny.call(STAGE_1, CONFIG, "-n", "x", "--set", "num_workers=2", "--set", "epoch=1").code == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_one_corrupt_picture_is_named_once_and_the_run_finishes(tiny: Workplace, workers: int) -> None:
    (broken,) = _copy_pictures(tiny, 1)
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x", "--set", "data_root=data/mine", "--set", f"num_workers={workers}")
    assert ended.code == 0, ended.err
    assert ended.out.count(broken) == 1
    assert (tiny.find_run("x") / "logs/losses.logs").read_text().count(f"left out {broken}") == 1


def test_many_corrupt_pictures_stop_the_run_with_their_list(tiny: Workplace) -> None:
    broken = _copy_pictures(tiny, 4)
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x", "--set", "data_root=data/mine")
    assert ended.code == 3
    assert "cannot be read (more than 5%)" in ended.err
    assert sum(f"left out {path}" in ended.out for path in broken) >= 2


def test_a_batch_larger_than_the_set_works_with_a_message(tiny: Workplace) -> None:
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x", "--set", "batch_size=1000", "--set", "epoch=1")
    assert ended.code == 0, ended.err
    assert "a batch of 1000 samples is more than there are: every batch holds all 16" in ended.out


def test_a_batch_too_small_for_batchnorm_is_refused_with_the_remedy(tiny: Workplace) -> None:
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x", "--set", "batch_size=1")
    assert_refused(ended, "stage1.batch_size", "BatchNorm", "--set stage1.batch_size=2")


def test_a_run_outside_the_configs_pattern_is_named_in_the_command_of_stage_2(tiny: Workplace) -> None:
    ended = tiny.call(STAGE_1, CONFIG, "-n", "other", "--set", "epoch=1")
    best = f"output/{tiny.find_run('other').name}/weights/best_model.pth"
    words = f"--set epoch=1 --set pretrained_student_weights={best}"
    assert f"python {STAGE_2} {CONFIG} -n run {words}\n" in ended.out


# Numbers that are not finite.


def inject_nan(monkeypatch: pytest.MonkeyPatch, is_poisoned: Callable[[int], bool]) -> None:
    """Not-a-number in the pictures of some steps, counted from 1."""
    from dataclasses import replace

    from sharpstudent.core.schedules import Progress
    from sharpstudent.core.types import Batch, StepResult
    from sharpstudent.train.step import TrainStep

    take, taken = TrainStep.__call__, []

    def take_poisoned(self: TrainStep, batch: Batch, progress: Progress) -> StepResult:
        taken.append(1)
        if is_poisoned(len(taken)):
            image = batch.inputs["image"].clone()
            image[0, 0, 0, 0] = float("nan")
            batch = replace(batch, inputs={"image": image})
        return take(self, batch, progress)

    monkeypatch.setattr(TrainStep, "__call__", take_poisoned)


def test_a_batch_with_nan_is_skipped_and_logged_and_the_run_goes_on(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject_nan(monkeypatch, lambda step: step == 3)
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x")
    assert ended.code == 0, ended.err
    assert "1 step skipped" in ended.out
    run = tiny.find_run("x")
    log = (run / "logs/losses.logs").read_text()
    assert re.search(r"skipped epoch 1 step 2: the input batch is not finite.*\.png", log)
    rows = (run / "logs/metrics.csv").read_text().splitlines()
    header = rows[0].split(",")
    assert [row.split(",")[header.index("skipped")] for row in rows[1:]] == ["1", "1"]
    assert [row.split(",")[header.index("steps")] for row in rows[1:]] == ["7", "8"]


def test_an_epoch_in_which_every_step_was_skipped_is_still_recorded(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject_nan(monkeypatch, lambda step: step <= STEPS_PER_EPOCH)
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x")
    assert ended.code == 0, ended.err
    assert f"{STEPS_PER_EPOCH} steps skipped" in ended.out


def test_fifty_skipped_steps_in_a_row_stop_the_run_with_advice_and_an_intact_best_model(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.checkpoint.store import load_checkpoint

    inject_nan(monkeypatch, lambda step: step > 64)
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x", "--set", "repeats=8")
    assert ended.code == 3
    assert "50 steps in a row were skipped" in ended.err
    assert "a lower learning rate" in ended.err
    weights = tiny.find_run("x") / "weights"
    assert f"intact in {weights.relative_to(tiny.folder)}: best_model.pth and last.pth" in ended.err
    best = load_checkpoint(weights / "best_model.pth")
    assert best.about["epoch"] == 1
    assert all(bool(value.isfinite().all()) for value in best.tensors["model"].values())


def test_stage_2_that_stops_in_its_first_steps_gives_the_guides_advice(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from sharpstudent.models.vision import build_classifier

    (tiny / "weights").mkdir()
    teacher = build_classifier("test_resnet", classes=2, dropout=None)
    torch.save(teacher.state_dict(), tiny / "weights/tiny_teacher.pth")
    inject_nan(monkeypatch, lambda step: True)
    ended = tiny.call(STAGE_2, CONFIG, "-n", "x", *ALONE, "--set", "max_skipped_in_a_row=4")
    assert ended.code == 3
    accuracy = re.search(r"student test_efficientnet is right on ([\d.]+%) of the validation pictures", ended.out)
    assert accuracy is not None
    assert f"stage 1 reached more than 80% accuracy (here: {accuracy[1]})" in ended.err
    assert "best_model.pth" not in ended.err  # there is none yet


# Where the output goes.


@pytest.mark.parametrize("root", [f"{CONFIG}/x", "/proc/x", f"{CONFIG}"])
def test_an_output_folder_that_cannot_be_written_is_refused_before_anything_is_computed(
    tiny: Workplace, root: str
) -> None:
    assert_refused(tiny.call(STAGE_1, CONFIG, "-n", "x", "--set", f"output_root={root}"), "output_root", root)


def test_a_dry_run_writes_nothing(tiny: Workplace) -> None:
    before = sorted(tiny.folder.rglob("*"))
    ended = tiny.call(STAGE_1, CONFIG, "--dry-run")
    assert ended.code == 0, ended.err
    assert "dry run: batch image (2, 3, 32, 32), step ok" in ended.out
    assert "8 steps an epoch, 2 epochs; nothing was written" in ended.out
    assert sorted(tiny.folder.rglob("*")) == before


def test_runs_of_one_name_started_at_once_get_folders_of_their_own(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.config.cli import parse_command_line
    from sharpstudent.registry import find_task
    from sharpstudent.train.run import Run, open_run

    monkeypatch.chdir(tiny.folder)
    command = parse_command_line([CONFIG, "-n", "twin"], stage=1, find_task=find_task)
    races, runners = 20, 2
    made: list[Path] = []
    gate = threading.Barrier(runners)

    def race(run: Run) -> None:
        gate.wait()
        run.create_folder()

    for _ in range(races):
        runs = [open_run(command) for _ in range(runners)]
        threads = [threading.Thread(target=race, args=[run]) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made += [run.folder for run in runs]
    assert len(set(made)) == races * runners
    for folder in made:
        assert re.fullmatch(r"twin_tiny(_\d\d){5}(_\d+)?", folder.name)
        assert json.loads((folder / "config.json").read_text())["name"] == "twin"
