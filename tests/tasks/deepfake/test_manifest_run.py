"""Whole runs on a prepared set: from files and from shards the same, and an end where too many crops are damaged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from drawn_faces import draw_face
from prepared_set import SetFace, write_set
from workplace import STAGE_1, Ended, Workplace

CONFIG = """{
  "data_source": "manifest", "data_root": "set", "image_size": 32, "student": "test_efficientnet",
  "student_init": "random", "epoch": 1, "batch_size": 2, "lr": 0.01, "num_workers": 0, "device": "cpu"
}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "tiny.json").write_text(CONFIG)
    faces = [
        SetFace(*draw_face(i, 100), "train" if i < 14 else "val", i % 2, f"clip {i // 2}", f"person {i // 2}", {})
        for i in range(20)
    ]
    for root, shards in (("set", False), ("shards", True)):
        write_set(tmp_path / root, faces, shards=shards)
    return tmp_path


def find_losses(ended: Ended) -> list[str]:
    assert ended.code == 0, ended.err
    return re.findall(r"(?:loss|val_auc)\D{0,3}(\d+\.\d+)", ended.out)


def test_a_run_is_the_same_from_files_and_from_shards(place: Path) -> None:
    workplace = Workplace(place)
    words = ("tiny.json", "-n", "run", "--set")
    loose, shards = (workplace.call(STAGE_1, *words, f"data_root={root}") for root in ("set", "shards"))
    assert find_losses(loose) == find_losses(shards) != []


def test_damaged_crops_stop_a_run_and_are_named(place: Path) -> None:
    crops = sorted((place / "set" / "crops").rglob("*.png"))
    for crop in crops[:6]:
        crop.write_bytes(crop.read_bytes()[:50])
    ended = Workplace(place).call(STAGE_1, "tiny.json", "-n", "run")
    assert ended.code == 3, ended.err
    assert "samples cannot be read (more than 5%)" in ended.err
    assert "50 bytes, expected" in ended.out
    assert "cut from videos/clip" in ended.out


def test_a_run_without_its_set_ends_with_one_message(place: Path) -> None:
    ended = Workplace(place).call(STAGE_1, "tiny.json", "-n", "run", "--set", "data_root=nowhere")
    assert ended.code == 2
    assert "prepare_faces.py SOURCE DEST" in ended.err
    assert "Traceback" not in ended.err
