"""`--preview-augmentation`: a picture of what training sees, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from drawn_sources import LookupDetector, LookupMesh, write_faces
from PIL import Image
from sharpstudent import commands
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.report import contact_sheet
from sharpstudent.tasks.deepfake.sources import face_crops

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_crops, "load_face_models", lambda **_: (LookupDetector(), LookupMesh()))


def draw(folder: Path, name: str, *words: str, **keys: object) -> Image.Image:
    (folder / "c.json").write_text(json.dumps({"image_size": 64, **keys}))
    commands.run(["train", "c.json", "--preview-augmentation", name, *words])
    return Image.open(folder / name)


def test_a_sheet_of_pairs_is_drawn_and_nothing_is_trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_faces(folder / "photos", {f"person{number}": 1 for number in range(12)})
    keys = {"data_source": "photos", "data_root": "photos"}
    sheet = draw(folder, "a.png", **keys, augmentation="video")
    rows, pair = contact_sheet.ROWS, 2 * contact_sheet.LEAST_SIDE
    assert sheet.width >= (1 + len(contact_sheet.EPOCHS)) * pair
    assert sheet.height >= rows * contact_sheet.LEAST_SIDE
    assert "8 samples, augmentation: video" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"photos", "c.json", "a.png", "data"}
    again, other = (draw(folder, f"{name}.png", **keys, augmentation=name) for name in ("video", "sbi"))
    assert np.array_equal(sheet, again)
    assert not np.array_equal(sheet, other)


def test_labelled_pictures_are_drawn_one_by_one(folder: Path) -> None:
    for label in ("real", "fake"):
        write_faces(
            folder / "set" / label, {f"{label}{number}": 1 for number in range(8)}, start=20 * (label == "fake")
        )
    sheet = draw(folder, "a.png", data_source="labelled", data_root="set", augmentation=[{"op": "grey", "p": 1}])
    assert sheet.width < 2 * 4 * contact_sheet.LEAST_SIDE
    picture = np.asarray(sheet)[100:, -120:-60]  # the last column, without frames and captions
    assert (picture.max(axis=2) - picture.min(axis=2) < 3).mean() > 0.8


def test_names_of_operations_that_were_applied_stand_below_the_pictures(folder: Path) -> None:
    from drawn_faces import draw_face
    from sharpstudent.tasks.deepfake.augmentation import OPERATIONS, build_steps
    from sharpstudent.tasks.deepfake.samples import BlendedPairs
    from sharpstudent.tasks.deepfake.sources.face import Face, LoadedFace

    face = Face("a", "a", "a", 0, lambda: LoadedFace(*draw_face(0, 120)))
    steps = build_steps([OPERATIONS["jpeg"](p=1, quality=(55, 55)), OPERATIONS["grey"](p=0), OPERATIONS["flip"](p=1)])
    listed = BlendedPairs([face], image_size=48, train=True, steps=steps).draw(0, np.random.default_rng(0))
    assert listed.told == ("jpeg 55", "flip")
    told = [
        BlendedPairs([face], image_size=48, train=True).draw(0, np.random.default_rng(seed)).told for seed in range(40)
    ]
    words = {word.split()[0] for one in told for word in one}
    assert words == {"flip", "rgb_shift", "hue_saturation", "brightness_contrast", "jpeg"}
    assert all(40 <= int(word.split()[1]) <= 100 for one in told for word in one if word.startswith("jpeg"))


def test_a_task_without_such_a_picture_says_so(folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        commands.run(["train", str(ROOT / "configs/tokens_mnist.json"), "--preview-augmentation", "a.png"])
    assert "--preview-augmentation" in caught.value.as_text()
    assert not (folder / "a.png").exists()
