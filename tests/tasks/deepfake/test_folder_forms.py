"""Every form of folder and table means the same at all five entrances, and every file of it is used or named."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.dataset.manifest import Manifest
from sharpstudent.tasks.deepfake.evaluation import crops_set
from sharpstudent.tasks.deepfake.evaluation.set_request import SetRequest
from sharpstudent.tasks.deepfake.layouts import structure
from sharpstudent.tasks.deepfake.layouts.listing import VIDEO_SUFFIXES, walk_files
from sharpstudent.tasks.deepfake.layouts.names import CLASS_WORDS, SPLIT_WORDS
from sharpstudent.tasks.deepfake.layouts.registry import find_clips
from sharpstudent.tasks.deepfake.prepare import run
from sharpstudent.tasks.deepfake.prepare.settings import Request
from sharpstudent.tasks.deepfake.sources import labelled, photos
from sharpstudent.tasks.deepfake.sources.face import FaceSplits
from sharpstudent.tasks.deepfake.sources.face_crops import CropFile

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE / "layouts"), str(HERE / "prepare")]
from dataset_trees import MAKERS
from folder_forms import FORMS, MANY, Form
from in_process_pool import InProcessPool
from text_cropper import TextCropper

DOCS = HERE.parents[2] / "docs" / "face-data.md"
Reading = dict[str, tuple[int | None, str | None, str]]
FORM = pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])


class AllFaces:
    """Takes every photo for a face: which photos are asked for is what counts."""

    notes: Sequence[str] = ()

    def __init__(self, *, image_size: int) -> None:
        self.rejected: dict[Path, str] = {}

    def prepare(self, paths: Sequence[Path]) -> dict[Path, CropFile]:
        return {path: CropFile(path, path) for path in paths}


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "WorkerPool", InProcessPool)
    monkeypatch.setattr("sharpstudent.tasks.deepfake.sources.face_crops.check_model_files", lambda: None)
    monkeypatch.setattr(photos, "FaceCrops", AllFaces)
    monkeypatch.setattr(structure, "MANY", MANY)

    def prepare(request: Request, console: Console, **settings: object) -> object:
        return run.run_preparation(request, console, build_cropper=TextCropper, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(crops_set, "run_preparation", prepare)


def read_manifest(dest: Path, root: Path) -> Reading:
    return {row.source: (row.label, row.split, row.identity) for row in Manifest.open(dest / "manifest.arrow")}


def enter_prepare(form: Form, source: Path, root: Path) -> Reading:
    request = Request(source, root.parent / "set", label=form.label, people=form.people)  # type: ignore[arg-type]
    crops_set.run_preparation(request, Console(file=io.StringIO()))
    return read_manifest(root.parent / "set", root)


def enter_evaluation(form: Form, source: Path, root: Path) -> Reading:
    request = SetRequest(source, split="all", label=form.label, people=form.people)  # type: ignore[arg-type]
    crops_set.read_folder_set(request, name="x", say=lambda _: None, console=None)
    (dest,) = Path("data/evaluation_faces").iterdir()
    return read_manifest(dest, root)


def enter_crops(form: Form, source: Path, root: Path) -> Reading:
    request = SetRequest(source, split="all", crops=True, label=form.label, people=form.people)  # type: ignore[arg-type]
    found = crops_set.read_crops_set(request, name="x")
    frames = found.frames
    return {
        sample: (int(label), None, group)
        for sample, label, group in zip(frames.sample_ids, frames.labels, frames.groups, strict=True)
    }


def enter_labelled(form: Form, source: Path, root: Path) -> Reading:
    """Try seeds: of so few people, some draws leave a class out of validation."""
    for seed in range(30):
        with contextlib.suppress(UserError):
            found = labelled.find_faces(source, validation_share=0.4, split_seed=seed, people=form.people)
            return read_splits(found)
    return read_splits(labelled.find_faces(source, validation_share=0.4, split_seed=0, people=form.people))


def enter_photos(form: Form, source: Path, root: Path) -> Reading:
    settings = {"image_size": 64, "validation_share": 0.3, "split_seed": 0, "allow_shared": False}
    return read_splits(photos.find_faces(source, people=form.people, **settings))  # type: ignore[arg-type]


def read_splits(found: FaceSplits) -> Reading:
    return {
        face.name: (face.label, split, face.identity)
        for split, faces in (("train", found.train), ("val", found.validation))
        for face in faces
    }


ENTRANCES: dict[str, Callable[[Form, Path, Path], Reading]] = {
    "prepare": enter_prepare,
    "photos": enter_photos,
    "labelled": enter_labelled,
    "crops": enter_crops,
    "evaluation": enter_evaluation,
}
TRAINS = ("photos", "labelled")
TOO_LITTLE = ("has no picture of the class", "at least 2 people", "no photo to train on", "has no usable face")


def expect(form: Form, entrance: str) -> Reading | None:
    """What an entrance must read; None where it must refuse."""
    reading = form.read()
    if form.refused:
        return None
    if entrance in ("photos", "labelled", "crops"):
        reading = {path: one for path, one in reading.items() if not path.lower().endswith(VIDEO_SUFFIXES)}
    if entrance == "photos":
        reading = {path: one for path, one in reading.items() if not one[0]}
    elif entrance != "prepare" and any(label is None for label, _, _ in reading.values()):
        return None  # no class is said
    if entrance in TRAINS:
        reading = {path: one for path, one in reading.items() if one[1] != "test"}
    return {path: (label or 0, split, person) for path, (label, split, person) in reading.items()} or None


@pytest.mark.parametrize("entrance", ENTRANCES)
@FORM
def test_a_form_means_the_same_at_every_entrance(form: Form, entrance: str, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    source = form.make(root)
    expected = expect(form, entrance)
    try:
        found = ENTRANCES[entrance](form, source, root)
    except UserError as error:
        text = error.as_text()
        assert "remedy" in text
        if form.refused:
            assert form.refused in text
        elif expected is not None:  # a training needs both classes, and people to hold out
            assert entrance in TRAINS, text
            assert is_too_little(expected, entrance), text
            assert any(words in text for words in TOO_LITTLE), text
        return
    assert expected is not None, "must be refused"
    has_splits = entrance == "prepare" and any(split for _, split, _ in form.read().values())
    compare_split = has_splits or entrance == "prepare"
    for path, (label, split, person) in found.items():
        wanted = expected[path]
        assert (label, person) == (wanted[0], wanted[2]), path
        if wanted[1] is not None and entrance != "crops":
            allowed = {wanted[1]} | ({"val"} if wanted[1] == "train" and not says_validation(form) else set())
            assert split in allowed, path
        assert split != "test" or wanted[1] == "test" or not compare_split, path
    assert found.keys() == expected.keys()


def says_validation(form: Form) -> bool:
    return any(split == "val" for _, split, _ in form.read().values())


def is_too_little(expected: Reading, entrance: str) -> bool:
    """Whether an entrance that trains cannot, whatever the draw: one person, or a class that a split lacks."""
    people = {person for _, _, person in expected.values()}
    by_split = {(split, label) for label, split, _ in expected.values()}
    splits = {split for split, _ in by_split}
    if len(people) < 2 or entrance == "photos":
        return len(people) < 2
    whole = splits == {"train", "val"} and len(by_split) == 4
    shared = {person for label, _, person in expected.values() if label == 0}
    fakes = {person for label, _, person in expected.values() if label == 1}
    return not whole and (min(len(shared), len(fakes)) < 2 or splits == {"train", "val"})


@FORM
def test_every_file_of_a_form_is_used_or_named_once(form: Form, tmp_path: Path) -> None:
    if form.refused:
        return
    source = form.make(tmp_path / "mine")
    check_sum(tmp_path / "mine", source, form)


def check_sum(root: Path, source: Path, form: Form | None = None) -> None:
    people, label = (form.people, form.label) if form else (None, None)
    _, found = find_clips(source, layout=None, label=label, people=people)
    used = {str(clip.file) for clip in found.clips}
    frames = [frame for clip in found.clips for frame in clip.frames]
    used |= {str(path) for one in frames for path in (one.picture, one.landmarks, one.boxes, one.mask) if path}
    named = [rejected.source for rejected in found.rejected]
    assert len(named) == len(set(named))
    known = {str(path) for path in found.known} - {str(source)}
    for file in walk_files(root, lambda *_: None):
        above = {str(parent) for parent in file.parents}
        is_used, is_named = str(file) in used, bool({str(file), f"{file.parent}/*", *above} & set(named))
        is_known = str(file) == str(source) or bool({str(file), *above} & known)
        assert is_used + is_named == 1 or (is_known and not is_named), file


@pytest.mark.parametrize("name", MAKERS)
def test_every_file_of_a_data_set_is_used_known_or_named_once(name: str, tmp_path: Path) -> None:
    root = MAKERS[name](tmp_path / name)
    for extra in ("notes.txt", "more/x.mp4", "more/deep/y.heic", "z.jpg"):
        (root / extra).parent.mkdir(parents=True, exist_ok=True)
        (root / extra).touch()
    check_sum(root, root)


def test_the_docs_have_the_table_of_forms_and_their_reading() -> None:
    assert len(FORMS) >= 60
    text = DOCS.read_text(encoding="utf-8")
    missing = [line for line in render_table() if line not in text]
    assert missing == [], "\n".join(render_table())


def test_the_docs_have_every_word_of_classes_and_splits() -> None:
    text = DOCS.read_text(encoding="utf-8")
    words = {word for table in (CLASS_WORDS, SPLIT_WORDS) for words in table.values() for word in words}
    assert [word for word in words if f"`{word}`" not in text] == []


def test_a_folder_of_a_hundred_pictures_that_holds_most_of_its_class_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    Form("", tuple(f"holiday/{i}.jpg" for i in range(99))).make(tmp_path / "mine")
    found = find_clips(tmp_path / "mine", layout=None, label=None)[1]
    assert {clip.identities for clip in found.clips} == {("holiday",)}
    Form("", tuple(f"holiday/{i}.jpg" for i in range(100))).make(tmp_path / "mine")
    with pytest.raises(UserError, match=r"100 of 100 files under the one name 'holiday'(.|\n)*--people files"):
        find_clips(tmp_path / "mine", layout=None, label=None)
    Form("", tuple(f"trip/{i}.jpg" for i in range(100))).make(tmp_path / "mine")  # two of one size are people or films
    found = find_clips(tmp_path / "mine", layout=None, label=None)[1]
    assert {clip.identities for clip in found.clips} == {("holiday",), ("trip",)}


def render_table() -> list[str]:
    return [f"| `{form.name}` | {form.describe()} |" for form in FORMS]
