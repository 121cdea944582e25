"""`make train-free`: the table of photos keeps people apart, also where a photo is in two sets under two names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from drawn_faces import draw_face
from sharpstudent.tasks.deepfake.sources.face import LoadedFace

from demo import free_photos

SIDE = 240


class DrawnCrops:
    """In place of the face detector: each photo is a drawn face whose landmarks are known by the seed in its name."""

    def __init__(self, **_: Any) -> None:
        pass

    def prepare(self, photos: Sequence[Path]) -> dict[Path, Any]:
        return {photo: SimpleNamespace(load=lambda photo=photo: self._load(photo)) for photo in photos}

    def _load(self, photo: Path) -> LoadedFace:
        image = np.asarray(cv2.imread(str(photo), cv2.IMREAD_COLOR_RGB), np.uint8)
        landmarks = draw_face(int(photo.stem.split("_")[-1]), SIDE)[1]
        return LoadedFace(image, landmarks * np.float32(image.shape[0] / SIDE))


def draw(path: Path, seed: int, *, side: int = SIDE, quality: int = 95) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = cv2.resize(draw_face(seed, SIDE)[0], (side, side), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(free_photos, "FaceCrops", DrawnCrops)
    lines = ["file,person"]
    for seed in range(12):
        draw(tmp_path / f"faces/studio/{seed:03d}.jpg", seed)
        lines.append(f"studio/{seed:03d}.jpg,studio_{seed:03d}")
        draw(tmp_path / f"faces_cc0/photos/{100 + seed}.jpg", 100 + seed)
        draw(tmp_path / f"faces_congress/photos/{200 + seed}.jpg", 200 + seed)
    (tmp_path / "faces/index.csv").write_text("\n".join([*lines, ""]))
    return tmp_path


def test_a_photo_that_is_in_two_sets_is_of_one_person_in_one_split(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {Path(path).name: (person, split) for path, person, split in free_photos.list_photos(data)}
    assert len({person for person, _ in before.values()}) == len(before)
    for seed in (4, 7):  # smaller, and compressed further
        draw(data / f"faces_cc0/photos/copy_{seed:03d}.jpg", seed, side=180, quality=60)
    capsys.readouterr()
    after = {Path(path).name: (person, split) for path, person, split in free_photos.list_photos(data)}
    assert capsys.readouterr().out.count("near copies") == 2
    for seed in (4, 7):
        assert after[f"copy_{seed:03d}.jpg"] == before[f"{seed:03d}.jpg"]
    assert {name: one for name, one in after.items() if not name.startswith("copy")} == before


def test_grey_photos_are_the_smaller_part_and_every_split_is_drawn_by_the_name_alone(data: Path) -> None:
    listed = free_photos.list_photos(data)
    assert sum("congress" in person for _, person, _ in listed) < 12
    for path in (data / "faces_cc0/photos").glob("10[0-5].jpg"):
        path.unlink()
    fewer = free_photos.list_photos(data)
    assert {*fewer} < {*listed}
