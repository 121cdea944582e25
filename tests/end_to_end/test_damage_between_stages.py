"""A bit that flips in a file of weights before it is read: no stage and no evaluation goes on with changed values."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from sharpstudent.core.archive import path_of_json
from workplace import STAGE_1, STAGE_2, TINY, Ended, Workplace

CONFIG = "configs/tiny.json"
EVALUATE = "evaluate_model.py"
TEACHER = "weights/tiny_teacher.pth"
SHORT = ("--set", "epoch=1", "--set", "student=test_resnet", "--set", "teacher=test_resnet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Path:
    """A folder with a stage-1 run, `first`, whose best model is the teacher, too; read only."""
    place = Workplace(tmp_path_factory.mktemp("trained"))
    (place / "data").mkdir()
    (place / "data/labelled").symlink_to(labelled_root)
    (place / CONFIG).write_text(TINY)
    assert start(place, STAGE_1, "first").code == 0
    (place / "weights").mkdir()
    shutil.copyfile(best_of(place), place / TEACHER)
    return place.folder


@pytest.fixture
def place(tiny: Workplace, trained: Path) -> Workplace:
    """A copy of `trained`."""
    for name in ("output", "weights"):
        shutil.copytree(trained / name, tiny / name)
    return tiny


def start(place: Workplace, script: str, name: str, *words: str) -> Ended:
    return place.call(script, CONFIG, "-n", name, *SHORT, *words)


def best_of(place: Workplace) -> Path:
    return place.find_run("first") / "weights/best_model.pth"


def flip_in_largest_record(path: Path) -> None:
    """Flip the highest bit of a byte in the middle of the archive's largest record: the sign of a weight."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        with archive.open(largest) as record:
            wanted = record.read()
    whole = bytearray(path.read_bytes())
    place = whole.index(wanted) + len(wanted) // 8 * 4 + 3
    whole[place] ^= 0x80
    path.write_bytes(whole)


@pytest.mark.parametrize("has_json", [True, False], ids=["with its JSON", "without"])
def test_stage_2_refuses_a_student_of_stage_1_with_a_flipped_bit(place: Workplace, has_json: bool) -> None:
    best = best_of(place)
    flip_in_largest_record(best)
    if not has_json:
        path_of_json(best).unlink()
    ended = start(place, STAGE_2, "second")
    assert ended.code == 2
    assert f"output/{best.parent.parent.name}/weights/best_model.pth: is damaged" in ended.err
    assert not list((place / "output").glob("second_*"))


def test_a_damaged_student_is_passed_over_for_an_older_one_and_named(place: Workplace) -> None:
    best = best_of(place)
    older = best.parents[2] / "first_older"
    shutil.copytree(best.parents[1], older)
    flip_in_largest_record(best)
    best.touch()
    ended = start(place, STAGE_2, "second")
    assert ended.code == 0, ended.err
    assert "took the newest that fits, output/first_older/weights/best_model.pth" in ended.out
    assert f"passed over a newer file, output/{best.parent.parent.name}/weights/best_model.pth: is damaged" in ended.out


def test_stage_2_refuses_a_teacher_with_a_flipped_bit(place: Workplace) -> None:
    flip_in_largest_record(place / TEACHER)
    ended = start(place, STAGE_2, "second")
    assert ended.code == 2
    assert f"{TEACHER}: is damaged" in ended.err


def test_stage_1_refuses_first_weights_with_a_flipped_bit(place: Workplace) -> None:
    flip_in_largest_record(place / TEACHER)
    ended = start(place, STAGE_1, "again", "--set", f"student_init={TEACHER}")
    assert ended.code == 2
    assert f"{TEACHER}: is damaged" in ended.err


def test_the_evaluation_refuses_an_export_with_a_flipped_bit(place: Workplace) -> None:
    export = best_of(place).with_suffix(".safetensors")
    whole = bytearray(export.read_bytes())
    whole[-1] ^= 0x80
    export.write_bytes(whole)
    ended = place.call(EVALUATE, "--crops", "data/labelled", str(export))
    assert ended.code == 2
    assert "is damaged: its content does not match the digest in it" in ended.err


def test_a_teacher_without_digest_and_checksums_is_used_with_a_line_that_says_so(place: Workplace) -> None:
    weights = torch.load(place / TEACHER, weights_only=True)["model"]
    torch.save(weights, place / TEACHER, _use_new_zipfile_serialization=False)
    ended = start(place, STAGE_2, "second")
    assert ended.code == 0, ended.err
    assert ended.out.count("tiny_teacher.pth is not verified") == 1
