"""make_swaps.py on drawn faces: who is swapped with whom, what is written, what is left out, and resuming."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from drawn_sources import LANDMARKS_BY_PICTURE, LookupDetector, draw_registered_face, write_faces, write_picture
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.evaluation.crops_set import read_swaps
from sharpstudent.tasks.deepfake.sources.labelled import find_faces
from sharpstudent.tasks.deepfake.swaps import faces as swaps_faces
from sharpstudent.tasks.deepfake.swaps import run as swaps
from sharpstudent.tasks.deepfake.swaps.faces import PartnerChoice
from sharpstudent.tasks.deepfake.swaps.folder import SwapRow, read_finished, write_table
from sharpstudent.tasks.deepfake.swaps.people import SwapRequest, name_safely

PEOPLE, DEST = Path("people"), Path("swaps")
SIZE = 64


class LookupMesh:
    def locate(self, image: np.ndarray, box: np.ndarray, *, roll: float = 0.0) -> tuple[np.ndarray, float]:
        return LANDMARKS_BY_PICTURE[image.tobytes()], 1.0


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, networks that look the drawn faces up, and no check for visible swaps."""
    monkeypatch.chdir(tmp_path)
    Path("model").write_bytes(b"model")
    monkeypatch.setattr(swaps, "check_model_files", lambda: None)
    monkeypatch.setattr(swaps, "DETECTOR_FILE", Path("model"))
    monkeypatch.setattr(swaps, "MESH_FILE", Path("model"))
    monkeypatch.setattr(swaps_faces, "load_face_models", lambda: (LookupDetector(), LookupMesh()))
    monkeypatch.setattr(swaps_faces, "LARGEST_FLAW", 100.0)
    monkeypatch.setattr(swaps_faces, "LARGEST_BRIDGE", 100.0)
    return tmp_path


def make(people: Path = PEOPLE, dest: Path = DEST, **changes: Any) -> swaps.SwapCounts:
    request = SwapRequest(people, dest, image_size=SIZE)
    return swaps.run_swaps(replace(request, **changes), lambda line: None)


def read_rows(dest: Path = DEST) -> list[dict[str, str]]:
    with (dest / "swaps.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def read_tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def read_left_out(dest: Path = DEST) -> dict[str, str]:
    with (dest / "left_out.csv").open(newline="", encoding="utf-8") as lines:
        return {row["file"]: row["reason"] for row in csv.DictReader(lines)}


def write_csv(rows: list[tuple[str, ...]], columns: str = "path,person,split") -> Path:
    path = Path("people.csv")
    path.write_text("\n".join([columns, *(",".join(row) for row in rows)]) + "\n")
    return path


def test_every_face_gives_one_real_and_one_fake_of_another_person() -> None:
    write_faces(PEOPLE, {"ann": 2, "ben": 1, "cy": 2, "di": 1})
    counts = make()
    assert (counts.real, counts.fake, counts.people, counts.left_out) == (6, 6, 4, 0)
    rows = read_rows()
    assert len(rows) == 12
    for row in rows:
        picture = cv2.imread(str(DEST / row["file"]))
        assert picture is not None
        assert picture.shape == (SIZE, SIZE, 3)
        assert row["file"].startswith(f"{row['label']}/{row['target_person']}/")
        assert row["target_file"].startswith(f"{row['target_person']}/")
        if row["label"] == "fake":
            assert row["source_person"] != row["target_person"]
            assert row["source_file"].startswith(f"{row['source_person']}/")
            assert row["method"] in ("poisson", "feather")
        else:
            assert (row["source_person"], row["source_file"], row["method"]) == ("", "", "")
    assert len({row["file"] for row in rows}) == 12


def test_a_fake_equals_its_real_picture_outside_the_face() -> None:
    write_faces(PEOPLE, {"ann": 1, "ben": 1, "cy": 1})
    make()
    for row in read_rows():
        if row["label"] == "fake":
            real = cv2.imread(str(DEST / f"real/{row['target_person']}/0.png"))
            fake = cv2.imread(str(DEST / row["file"]))
            same = (real == fake).all(axis=2)
            assert 0.1 < same.mean() < 0.95
            assert same[[0, -1]].all()
            assert not same[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4].all()


def test_of_two_commands_on_one_folder_the_second_is_refused_and_the_first_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_faces(PEOPLE, {"ann": 1, "ben": 1, "cy": 1})
    make(dest=Path("alone"))
    ready, go_on = os.pipe(), os.pipe()
    make_all = swaps._make_all

    def make_when_told(*words: Any) -> Any:
        os.write(ready[1], b"x")
        os.read(go_on[0], 1)
        return make_all(*words)

    child = os.fork()
    if child == 0:  # the first command, in the middle of its work
        monkeypatch.setattr(swaps, "_make_all", make_when_told)
        code = 1
        with contextlib.suppress(BaseException):
            make()
            code = 0
        os._exit(code)
    os.read(ready[0], 1)
    before = read_tree(DEST)
    try:
        with pytest.raises(UserError, match=rf"is being written by another process(.|\n)*process {child} "):
            make()
        assert read_tree(DEST) == before
    finally:
        os.write(go_on[1], b"x")
        _, status = os.waitpid(child, 0)
    assert status == 0
    assert read_tree(DEST) == read_tree(Path("alone"))


def test_several_fakes_of_one_face_come_from_different_people() -> None:
    write_faces(PEOPLE, dict.fromkeys(("ann", "ben", "cy", "di"), 2))
    counts = make(per_face=3)
    assert (counts.real, counts.fake) == (8, 24)
    sources: dict[str, list[str]] = {}
    for row in read_rows():
        if row["label"] == "fake":
            sources.setdefault(row["target_file"], []).append(row["source_person"])
    assert all(len(set(people)) == 3 for people in sources.values())


@pytest.mark.parametrize("picture", ["png", "jpg"])
def test_the_same_seed_gives_the_same_bytes_and_another_one_other_partners(picture: str) -> None:
    write_faces(PEOPLE, {f"p{i}": 1 for i in range(14)})
    for dest, seed in (("one", 0), ("two", 0), ("other", 1)):
        make(dest=Path(dest), seed=seed, picture=picture)
    assert read_tree(Path("one")) == read_tree(Path("two"))
    partners = [[row["source_person"] for row in read_rows(Path(dest))] for dest in ("one", "other")]
    assert partners[0] != partners[1]


def test_partners_come_from_the_same_split_only_and_a_split_can_be_chosen() -> None:
    people = {f"p{i}": 1 for i in range(9)}
    write_faces(PEOPLE, people)
    splits = {person: ("train", "val", "test")[i % 3] for i, person in enumerate(people)}
    table = write_csv([(f"people/{person}/0.png", person, split) for person, split in splits.items()])
    make(table, Path("all"))
    rows = read_rows(Path("all"))
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    for row in rows:
        assert row["split"] == splits[row["target_person"]]
        if row["label"] == "fake":
            assert splits[row["source_person"]] == row["split"]
    make(table, Path("test"), split="test")
    assert {row["target_person"] for row in read_rows(Path("test"))} == {"p2", "p5", "p8"}


def test_people_without_a_split_are_split_as_in_training() -> None:
    from sharpstudent.data.splits import choose_validation_identities

    people = {f"p{i}": 1 for i in range(10)}
    write_faces(PEOPLE, people)
    held_out = choose_validation_identities(list(people), share=0.3, seed=4)
    make(dest=Path("val"), split="val", validation_share=0.3, split_seed=4)
    make(dest=Path("train"), split="train", validation_share=0.3, split_seed=4)
    assert {row["target_person"] for row in read_rows(Path("val"))} == held_out
    assert {row["target_person"] for row in read_rows(Path("train"))} == set(people) - held_out


def test_one_person_under_two_names_is_never_swapped_with_themselves() -> None:
    write_faces(PEOPLE, {"ann": 2, "ben": 1, "cy": 1})
    (PEOPLE / "alias").mkdir()
    shutil.copy(PEOPLE / "ann" / "0.png", PEOPLE / "alias" / "x.png")  # the same file
    write_picture(PEOPLE / "alias" / "y.png", draw_registered_face(77))  # another photo of theirs
    # ben's photo once more, at another size: no byte is the same.
    write_picture(PEOPLE / "double" / "small.png", draw_registered_face(2, 90))
    make(per_face=5)
    pairs = {(row["source_person"], row["target_person"]) for row in read_rows() if row["label"] == "fake"}
    for one, other in (("ann", "alias"), ("ben", "double")):
        assert (one, other) not in pairs
        assert (other, one) not in pairs
    assert ("ann", "ben") in pairs


def test_unreadable_and_faceless_photos_are_listed_and_left_out() -> None:
    write_faces(PEOPLE, {"ann": 1, "ben": 1, "cy": 1})
    (PEOPLE / "ann" / "cut.png").write_bytes((PEOPLE / "ann" / "0.png").read_bytes()[:40])
    (PEOPLE / "ben" / "empty.jpg").write_bytes(b"")
    write_picture(PEOPLE / "cy" / "wall.png", np.full((90, 90, 3), 200, np.uint8))
    counts = make()
    assert (counts.real, counts.left_out) == (3, 3)
    reasons = read_left_out()
    assert set(reasons) == {"ann/cut.png", "ben/empty.jpg", "cy/wall.png"}
    assert "no face" in reasons["cy/wall.png"]
    assert "0 bytes" in reasons["ben/empty.jpg"]


def test_glasses_and_visible_swaps_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    write_faces(PEOPLE, {"ann": 1, "ben": 1})
    monkeypatch.setattr(swaps_faces, "LARGEST_BRIDGE", -1.0)
    with pytest.raises(UserError, match="gave no swap"):
        make()
    assert all("bridge" in reason for reason in read_left_out().values())
    monkeypatch.setattr(swaps_faces, "LARGEST_BRIDGE", 100.0)
    monkeypatch.setattr(swaps_faces, "LARGEST_FLAW", -1.0)
    with pytest.raises(UserError, match="would show"):
        make(dest=Path("other"))
    assert not list(Path("other").rglob("*.png"))


def test_a_stopped_run_resumes_and_ends_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    write_faces(PEOPLE, dict.fromkeys(("ann", "ben", "cy"), 2))
    make(dest=Path("whole"), per_face=2)
    write = swaps.write_bytes_atomically
    for stop_after in (1, 4, 7):
        written: list[Path] = []

        def stop(path: Path, content: bytes, limit: int = stop_after, written: list[Path] = written) -> None:
            if len(written) == limit:
                raise KeyboardInterrupt
            write(path, content)
            written.append(path)

        monkeypatch.setattr(swaps, "write_bytes_atomically", stop)
        with pytest.raises(KeyboardInterrupt):
            make(per_face=2)
    with (DEST / "swaps.csv").open("a") as table:
        table.write("fake/ann/half a li")  # what a power cut leaves
    (DEST / "fake" / "ann" / ".0.png.123.partial").write_bytes(b"half")
    monkeypatch.setattr(swaps, "write_bytes_atomically", write)
    made: list[int] = []
    choose = PartnerChoice.choose
    monkeypatch.setattr(
        PartnerChoice, "choose", lambda self, index, count: made.append(index) or choose(self, index, count)
    )
    make(per_face=2)
    assert read_tree(DEST) == read_tree(Path("whole"))
    assert 0 < len(made) < 6  # the first faces were finished
    made.clear()
    (DEST / "fake/ben").joinpath(next(iter((DEST / "fake/ben").iterdir())).name).unlink()
    make(per_face=2)
    assert len(made) == 1  # only the face whose picture is gone
    assert read_tree(DEST) == read_tree(Path("whole"))


def test_other_settings_or_photos_are_refused_for_a_folder_that_holds_swaps() -> None:
    write_faces(PEOPLE, {"ann": 1, "ben": 1})
    make()
    before = read_tree(DEST)
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        make(seed=1)
    write_faces(PEOPLE, {"cy": 1}, start=30)
    with pytest.raises(UserError, match="people_sha256"):
        make()
    assert read_tree(DEST) == before


def test_another_blending_gives_other_fakes_of_the_same_faces_and_is_refused_for_a_begun_folder() -> None:
    write_faces(PEOPLE, {"ann": 1, "ben": 1, "cy": 1})
    make()
    folders = {name: Path(name) for name in ("feather", "hard", "multiband", "affine")}
    for name, folder in folders.items():
        make(dest=folder, blending=name)
        assert {row["method"] for row in read_rows(folder) if row["label"] == "fake"} == {name}
        with pytest.raises(UserError, match=f"blending: .*{name}"):
            make(dest=folder)
    trees = [read_tree(folder) for folder in (DEST, *folders.values())]
    for file in (file for file in trees[0] if file.endswith(".png")):
        default, *others = (tree[file] for tree in trees)  # a Poisson blend may be the feathered one
        assert len(set(others)) == (1 if file.startswith("real") else len(folders))
        assert default in others or not file.startswith("real")
    assert "blending" not in (DEST / "swaps.json").read_text(encoding="utf-8")  # what was begun before goes on


@pytest.mark.parametrize(
    ("spoil", "changes", "words"),
    [
        (lambda: shutil.rmtree(PEOPLE), {}, ("people", "does not exist", "ROOT/PERSON")),
        (lambda: None, {"people": Path("nope.csv")}, ("nope.csv", "does not exist")),
        (lambda: None, {"dest": PEOPLE / "swaps"}, ("lies in PEOPLE",)),
        (lambda: None, {"dest": Path()}, ("holds PEOPLE",)),
        (lambda: None, {"dest": PEOPLE}, ("lies in PEOPLE",)),
        (lambda: DEST.write_text("x"), {}, ("is a file",)),
        (lambda: write_picture(DEST / "mine.png", draw_registered_face(1)), {}, ("holds something else", "mine.png")),
        (lambda: shutil.rmtree(PEOPLE / "ann"), {}, ("of 1 person", "a swap takes two")),
        (lambda: None, {"split": "test"}, ("has no split", "--split test")),
        (lambda: (PEOPLE / "swaps.json").write_text('{"made_by": "make_swaps.py", "settings": {}}'), {}, ("written",)),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(
    spoil: Callable[[], Any], changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    write_faces(PEOPLE, {"ann": 1, "ben": 1})
    spoil()
    before = read_tree(Path())
    with pytest.raises(UserError) as caught:
        make(**changes)
    assert len(caught.value.problems) == 1
    for word in words:
        assert word in str(caught.value)
    assert read_tree(Path()) == before


@pytest.mark.parametrize(
    ("columns", "rows", "words"),
    [
        ("name,person", [("a.png", "ann")], ("path",)),
        ("path,person,split", [("a.png", "ann", "holdout")], ("line 2",)),
        (
            "path,person,split",
            [("a.png", "ann", "val"), ("b.png", "ben", "")],
            ("some rows have a split", "some have none"),
        ),
        ("path,person,split", [("a.png", "ann", "val"), ("b.png", "ann", "test")], ("ann", "two splits")),
        ("path,person,split", [("a.png", "ann", "val"), ("b.png", "ben", "test")], ("of split val", "takes two")),
    ],
)
def test_an_invalid_csv_is_refused(columns: str, rows: list[tuple[str, ...]], words: tuple[str, ...]) -> None:
    for name in ("a.png", "b.png"):
        Path(name).touch()
    with pytest.raises(UserError) as caught:
        make(write_csv(rows, columns), split="val")
    for word in words:
        assert word in str(caught.value)
    assert not DEST.exists()


def test_a_dest_around_the_photos_of_a_csv_is_refused() -> None:
    write_faces(PEOPLE, {"ann": 1, "ben": 1})
    table = write_csv([("people/ann/0.png", "ann"), ("people/ben/0.png", "ben")], "path,person")
    with pytest.raises(UserError, match="holds photos"):
        make(table, PEOPLE)


def test_names_that_are_invalid_on_file_systems_become_valid_everywhere() -> None:
    write_faces(PEOPLE, {"ann": 2, "ben": 1})
    odd = ["../ann", "a/b", "CON:|?", "x" * 300, "", " ", "Ann", "ann", "a__b", "ünï", ".hidden", "a."]
    names = name_safely(odd)
    assert len({name.casefold() for name in names.values()}) == len(odd)
    for name in names.values():
        assert 0 < len(name) <= 80
        assert not set(name) & set('/\\:|?*<>"')
        assert not name.startswith(".")
        assert "__" not in name
    table = write_csv(
        [("people/ann/0.png", "../../x"), ("people/ann/1.png", "../../x"), ("people/ben/0.png", "b/c")], "path,person"
    )
    make(table, DEST)
    assert all(DEST.resolve() in path.resolve().parents for path in DEST.rglob("*"))
    assert len(list((DEST / "real").rglob("*.png"))) == 3
    assert not list(DEST.parent.glob("x*"))


def test_photos_of_one_name_in_two_folders_of_a_person_get_two_files() -> None:
    write_faces(PEOPLE, {"ann/a": 1, "ann/b": 1, "ben": 1})
    make()
    assert len(list((DEST / "real" / "ann").iterdir())) == 2


def test_the_output_can_be_read_by_the_source_labelled() -> None:
    write_faces(PEOPLE, {f"p{i}": 2 for i in range(4)})
    make()
    found = find_faces(DEST, validation_share=0.25, split_seed=0)
    assert len(found.train) + len(found.validation) == 16
    assert not {face.identity for face in found.train} & {face.identity for face in found.validation}


def test_damaged_face_models_are_named_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from sharpstudent.tasks.deepfake.sources import face_crops

    write_faces(PEOPLE, {"ann": 1, "ben": 1})
    monkeypatch.setattr(swaps, "check_model_files", face_crops.check_model_files)
    face_crops.MESH_FILE.parent.mkdir(exist_ok=True)
    face_crops.MESH_FILE.write_bytes(b"not the published mesh")
    with pytest.raises(UserError, match=r"is not the file that MANIFEST\.json lists for it"):
        make()
    assert not DEST.exists()


def test_names_that_are_formulas_are_escaped_in_swaps_csv_and_read_back(tmp_path: Path) -> None:
    row = SwapRow("real/=1.png", "real", "", "", "@ann", "", "-1+1/a.png", "", 1)
    (tmp_path / "real").mkdir()
    (tmp_path / "real/=1.png").write_bytes(b"x")
    write_table(tmp_path, [row])
    assert "'@ann" in (tmp_path / "swaps.csv").read_text()
    assert read_finished(tmp_path) == {"-1+1/a.png": (row,)}
    assert read_swaps(tmp_path)["real/=1.png"].target_person == "@ann"
