"""A step that a run skipped, replayed by the command that the run printed: the same, explained, and nothing touched."""

from __future__ import annotations

import copy
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from workplace import STAGE_1, STAGE_2, Ended, Workplace

CONFIG = "configs/tiny.json"
SHORT = ("--set", "epoch=1")
# Stage 2 without stage 1, for the tests that are about something else.
ALONE = ("--set", "pretrained_student_weights=null", "--allow", "unpretrained-student", "--set", "epoch=1")
BAD = "real/person_05/0.png"  # a training image


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    """As in the subprocesses: sums over several threads round differently."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def with_teacher(tiny: Workplace) -> Workplace:
    write_teacher(tiny)
    return tiny


OVERFLOWS = 3.3e19  # its square times weights of at most 0.28: finite in float32, and their sums are not


def write_teacher(place: Workplace, factor: float = 1.0) -> None:
    """factor: its square is that of one layer's weights."""
    import torch
    from sharpstudent.models.vision import build_classifier

    (place / "weights").mkdir(exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = build_classifier("test_resnet", classes=2, dropout=None).state_dict()
    state["backbone.layer2.0.conv1.weight"].mul_(factor).mul_(factor)
    torch.save(state, place / "weights/tiny_teacher.pth")


def inject_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not-a-number in every batch that holds the image BAD, as a broken augmentation would make it."""
    from sharpstudent.tasks.deepfake.task import DeepfakeTask

    collate = DeepfakeTask.collate

    def collate_poisoned(self: DeepfakeTask, samples: Any, groups: Any) -> Any:
        batch = collate(self, samples, groups)
        for row, name in enumerate(batch.rows["id"]):
            if name.endswith(BAD):
                batch.inputs["image"][row, :, 3, 3] = float("nan")
        return batch

    monkeypatch.setattr(DeepfakeTask, "collate", collate_poisoned)


def find_command(ended: Ended) -> list[str]:
    """The words of the first command that the run printed, without `python`."""
    found = re.search(r"^  to look at it: python (.*)$", ended.out, re.MULTILINE)
    assert found is not None, ended.out + ended.err
    return shlex.split(found[1])


def read_folder(folder: Path) -> dict[str, tuple[bytes | None, int]]:
    """Bytes and time of every file and folder below."""
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns)
        for path in (folder, *folder.rglob("*"))
    }


def assert_same(run: Ended, again: Ended) -> None:
    """Exit code 0, and the reason of the first skip that the run named."""
    assert again.code == 0, again.out + again.err
    assert again.err == ""
    skip = re.search(r"^skipped (epoch \d+ step \d+): (.*?); everything else", run.out, re.MULTILINE)
    assert skip is not None
    assert f"{skip[1]}, taken again: the same, skipped because {skip[2]}\n" in again.out
    assert len(again.out.splitlines()) <= 25


@pytest.mark.parametrize("stage", [1, 2])
def test_the_printed_command_replays_the_step_without_data_and_changes_no_file(
    with_teacher: Workplace, stage: int
) -> None:
    """A real fault: a SAM radius so large that the moved weights overflow."""
    place = with_teacher
    words = (STAGE_1, CONFIG, "-n", "x", *SHORT) if stage == 1 else (STAGE_2, CONFIG, "-n", "x", *ALONE)
    ended = place.call(*words, "--set", "rho=1e30")
    command = find_command(ended)
    assert command[0] == words[0]
    (place / "data/labelled").unlink()
    before = read_folder(place / "output")
    again = place.run(*command) if stage == 2 else place.call(*command)  # another process, as when it is typed
    assert_same(ended, again)
    assert read_folder(place / "output") == before
    assert "skipped because the loss of pass 2 is not finite" in again.out
    assert re.search(r"pass 2, at the weights moved by rho:\n  first output that is not finite: backbone\.", again.out)
    assert f"--set stage{stage}.rho=0.05  (now 1e+30; a smaller SAM radius)" in again.out
    assert ("teacher: outputs" in again.out) == (stage == 2)
    assert place.call(*command).out == again.out


def test_a_step_of_a_variant_of_sam_is_replayed_with_what_it_had_kept(tiny: Workplace) -> None:
    variant = ("sam_every=4", "sam_friendly=true", "rho=1e30", "rho_warmup=0.5")  # from 0, so that steps are taken
    words = [word for one in variant for word in ("--set", one)]
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x", *SHORT, *words)
    assert_same(ended, tiny.call(*find_command(ended)))
    assert "skipped epoch 1 step 4" in ended.out


def test_an_image_that_is_not_finite_is_named(with_teacher: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        inject_nan(patch)
        ended = with_teacher.call(STAGE_2, CONFIG, "-n", "x", *ALONE)
    assert ended.code == 0, ended.err
    assert ended.out.count("to look at it: ") == 1
    again = with_teacher.call(*find_command(ended))
    assert_same(ended, again)
    assert f"inputs not finite: {BAD}\n" in again.out
    assert "to fix: the samples named above" in again.out
    log = (with_teacher.find_run("x") / "logs/losses.logs").read_text()
    assert f"python {' '.join(find_command(ended))}" in log


def test_a_teacher_that_overflows_is_named(with_teacher: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the preflight, which would have refused it: some teachers overflow on training pictures only."""
    from sharpstudent.train import trainer

    tiny, fly = with_teacher, trainer.preflight

    def fly_and_break(judge: Any, student: Any, teachers: Any, **settings: Any) -> Any:
        report = fly(judge, student, teachers, **settings)
        teachers[0][1].state_dict()["model.backbone.layer2.0.conv1.weight"].mul_(OVERFLOWS).mul_(OVERFLOWS)
        return report

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "preflight", fly_and_break)
        ended = tiny.call(STAGE_2, CONFIG, "-n", "x", *ALONE, "--set", "max_skipped_in_a_row=2")
    write_teacher(tiny, OVERFLOWS)  # infinite weights are refused when they are read
    assert ended.code == 3
    command = find_command(ended)
    again = tiny.call(*command)
    assert_same(ended, again)
    assert "first output that is not finite: teachers.0.model.backbone.layer2.0.conv1 (Conv2d)" in again.out
    assert "to fix: the weights of the teacher, teacher_weights = 'weights/tiny_teacher.pth'" in again.out
    write_teacher(tiny)  # mended: now the step goes well, which is not the same
    mended = tiny.call(*command)
    assert mended.code == 0
    assert "taken again: not the same. Now: taken, with loss" in mended.out


def test_an_exploding_learning_rate_is_reported_with_layer_and_value(tiny: Workplace) -> None:
    explosive = ("--set", "stage1.lr=100", "--set", "clip_norm=1e30", "--set", "rho=0", "--set", "repeats=4")
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x", *SHORT, *explosive)
    again = tiny.call(*find_command(ended))
    assert_same(ended, again)
    assert "settings: lr 100, rho 0, hard weight 1" in again.out
    assert "--set stage1.lr=10  (now 100; a lower learning rate)" in again.out
    assert "pass 2" not in again.out


def test_the_stored_state_is_that_before_the_step_bit_for_bit(tiny: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of an epoch, momentum and average included; the trainer takes it after the rollback."""
    import torch
    from sharpstudent.train.debug.skipped import load_skipped
    from sharpstudent.train.state import capture_step
    from sharpstudent.train.step import TrainStep

    met: dict[tuple[int, int], Any] = {}
    take = TrainStep.__call__

    def take_noted(self: TrainStep, batch: Any, progress: Any) -> Any:
        met[progress.epoch, progress.step] = copy.deepcopy(capture_step(self, torch.device("cpu")))
        return take(self, batch, progress)

    monkeypatch.setattr(TrainStep, "__call__", take_noted)
    inject_nan(monkeypatch)
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x", "--set", "ema_decay=0.9")
    assert ended.code == 0, ended.err
    files = sorted((tiny.find_run("x") / "skipped").glob("epoch_*.pth"))
    assert len(files) == 2  # one an epoch
    for file in files:
        kept = load_skipped(file)
        before = met[kept.progress.epoch, kept.progress.step]
        assert sorted(kept.state) == ["average", "model", "optimizer", "rng"]
        assert is_identical(kept.state, before), file
    assert kept.progress.epoch == 2
    assert before["optimizer"]["base"]["state"]


def is_identical(one: Any, two: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and one.numpy().tobytes() == two.numpy().tobytes()
    if isinstance(one, dict):
        return list(one) == list(two) and all(is_identical(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(is_identical, one, two))
    return one == two


def test_a_step_skipped_again_after_a_resume_is_stored_once(tiny: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    from sharpstudent.train.debug.skipped import SkippedSteps

    inject_nan(monkeypatch)
    keep, kept = SkippedSteps.keep, []

    def keep_and_die(self: SkippedSteps, *args: Any, **words: Any) -> str:
        kept.append(keep(self, *args, **words))
        if len(kept) == 2:  # in the second epoch
            raise RuntimeError("the machine stops")
        return kept[-1]

    monkeypatch.setattr(SkippedSteps, "keep", keep_and_die)
    with pytest.raises(RuntimeError, match="the machine stops"):
        tiny.call(STAGE_1, CONFIG, "-n", "x")
    folder = tiny.find_run("x") / "skipped"
    before = read_folder(folder)
    assert len([name for name in before if name.endswith(".pth")]) == 4  # two batches, two states
    resumed = tiny.call(STAGE_1, "--resume", "x")
    assert resumed.code == 0, resumed.err
    assert kept[2] == kept[1]
    assert read_folder(folder) == before
    assert tiny.call(*find_command(resumed)).code == 0


def test_a_path_with_blanks_is_quoted_in_the_printed_command(tiny: Workplace) -> None:
    ended = tiny.call(STAGE_1, CONFIG, "-n", "x", *SHORT, "--set", "rho=1e30", "--set", "output_root=my runs")
    command = find_command(ended)
    assert command[1] == "--replay"
    assert command[2].startswith("my runs/x_tiny_")
    assert_same(ended, tiny.call(*command))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("weights/last.pth", ("is not a skipped batch",)),
        ("skipped/STATE", ("is not a skipped batch",)),
        ("skipped/truncated.pth", ("truncated.pth", "is cut off")),
        ("skipped/text.pth", ("text.pth", "no checkpoint")),
        ("skipped/epoch_7_step_7.pth", ("does not exist",)),
        ("skipped/orphan.pth", ("gone.pth", "does not exist")),
    ],
)
def test_another_file_or_a_damaged_one_is_refused_with_one_message(
    tiny_skip: Workplace, file: str, words: tuple[str, ...]
) -> None:
    run = tiny_skip.find_run("x")
    (state,) = (path.name for path in (run / "skipped").glob("state_*.pth"))
    before = read_folder(run)
    ended = tiny_skip.call(STAGE_1, "--replay", str(run / file.replace("STATE", state)))
    assert ended.code == 2, ended.out + ended.err
    assert ended.err.count("error:") == 1
    for word in words:
        assert word in ended.err
    assert read_folder(run) == before


@pytest.fixture(scope="module")
def tiny_skip(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Workplace:
    """A run with skipped steps, and broken files beside them; read only."""
    from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
    from workplace import TINY

    place = Workplace(tmp_path_factory.mktemp("skips"))
    (place / "data").mkdir()
    (place / "data/labelled").symlink_to(labelled_root)
    (place / CONFIG).write_text(TINY)
    ended = place.call(STAGE_1, CONFIG, "-n", "x", *SHORT, "--set", "rho=1e30")
    folder = (place / find_command(ended)[2]).parent
    whole = (folder / "epoch_1_step_0.pth").read_bytes()
    (folder / "truncated.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "text.pth").write_text("no checkpoint at all")
    kept = load_checkpoint(folder / "epoch_1_step_0.pth")
    save_checkpoint(folder / "orphan.pth", kept.tensors, about={**kept.about, "state": "gone.pth"})
    return place


def test_a_run_folder_whose_config_builds_another_student_is_refused(tiny_skip: Workplace, tmp_path: Path) -> None:
    from sharpstudent.config.cli import load_run_config
    from sharpstudent.registry import find_task

    run = tmp_path / "run"
    shutil.copytree(tiny_skip.find_run("x"), run)
    config = load_run_config(run, find_task)
    other = config.model_copy(update={"student": config.student.model_copy(update={"name": "test_resnet"})})
    (run / "config.json").write_text(other.model_dump_json())
    ended = tiny_skip.call(STAGE_1, "--replay", str(run / "skipped/epoch_1_step_0.pth"))
    assert ended.code == 2
    assert "another model or optimiser than the run's config.json builds" in ended.err
    assert "Traceback" not in ended.err


def test_the_stored_batch_is_the_batch_of_the_step(tiny_skip: Workplace) -> None:
    """Not only another one of the same size: images, labels and names as the loader makes them again."""
    from sharpstudent.config.cli import load_run_config
    from sharpstudent.data.loader import load_batches
    from sharpstudent.data.sampler import TrainSampler
    from sharpstudent.registry import build_task, find_task
    from sharpstudent.train.build import open_training_data
    from sharpstudent.train.debug.skipped import load_skipped

    run = tiny_skip.find_run("x")
    config = load_run_config(run, find_task)
    root = str(tiny_skip / "data/labelled")
    section = config.task_section.model_copy(update={"data_root": root})
    task = build_task(config.model_copy(update={"task_section": section}))
    samples = open_training_data(task).train
    order = TrainSampler(len(samples), config.training.batch_size, samples.repeats, config.seed)
    kept = load_skipped(run / "skipped/epoch_1_step_2.pth").batch
    batches = list(order.batches(1, start_step=2))[:1]
    (loaded,) = load_batches(samples, batches, seed=config.seed, num_workers=0, collate=task.collate)
    names = tuple(name.removeprefix(f"{tiny_skip.folder}/") for name in loaded.batch.rows["id"])
    assert is_identical(
        [kept.inputs["image"], kept.targets["label"], tuple(kept.rows["id"])],
        [loaded.batch.inputs["image"], loaded.batch.targets["label"], names],
    )
