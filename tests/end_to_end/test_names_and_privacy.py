"""Whatever files are called, both stages train on them; and nothing that may be passed on tells whose they are."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import cv2
import ffpp_tree
import numpy as np
import pytest
from PIL import Image
from sharpstudent.config.stored import PRIVATE_NAME
from sharpstudent.report import page
from workplace import STAGE_1, STAGE_2, TINY, Ended, Workplace

PRIVATE = ("alice-the-user", "host-of-alice")
FORGED = "# skipped epoch 1 step 0: nothing of note"  # a name cannot hold the / of an epoch line
HOSTILE = (b"caf\xe9", f"a\n{FORGED}".encode(), b"b\x1b[31mred", "gpj\u202egnp".encode(), "c\u2028d".encode())


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two finished runs and an evaluation: data, output and weights by absolute paths, below a home and outside it."""
    top = tmp_path_factory.mktemp("disk of alice-the-user")
    home, data, output = top / "home" / "alice-the-user", top / "my data", top / "my output"
    home.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("USER", "alice-the-user")
        patch.setenv("LOGNAME", "alice-the-user")
        patch.setattr(socket, "gethostname", lambda: "host-of-alice")
        # Pixels take most of the time; the page has the same text.
        patch.setattr(page, "render_png", lambda chart: b"")
        write_data(data)
        place = Workplace(home)
        absolute = {
            '"data/labelled"': json.dumps(str(data)),
            '"output/first_': f'"{output}/first_',
            '"report": false': f'"output_root": {json.dumps(str(output))}',
            '"weights/tiny_teacher.pth"': json.dumps(f"{output}/first_*/weights/best_model.pth"),
            '"test_resnet"': '"test_efficientnet"',
            '"epoch": 2': '"epoch": 1',
        }
        config = TINY
        for before, after in absolute.items():
            config = config.replace(before, after)
        (home / "configs/tiny.json").write_text(config)
        check(place.call(STAGE_1, "configs/tiny.json", "-n", "first", "--set", "report=false"))
        check(place.call(STAGE_2, str(home / "configs/tiny.json"), "-n", "second"))
        run = str(next(output.glob("second_*")))
        words = ("--out", str(top / "report"), "--rounds", "20", "--workers", "0", "--device", "cpu")
        check(place.call("evaluate_model.py", run, "--data", str(data), "--crops", *words))
        ended = place.call(STAGE_2, "--resume", run, "--set", "patience=1")
        check(ended)
        assert "nothing left to do" in ended.out
        yield top
    shutil.rmtree(top)


def write_data(folder: Path) -> None:
    """Faces of twelve people: some under hostile names, one photo with EXIF, and one broken file."""
    ffpp_tree.write_labelled(folder, people=12)
    people = sorted(os.listdir(os.fsencode(folder / "real")))
    for person, name in zip(people, HOSTILE, strict=False):
        for label in (b"real", b"fake"):
            above = os.path.join(os.fsencode(folder), label)
            os.rename(os.path.join(above, person, b"0.png"), os.path.join(above, person, name + b".png"))
            os.rename(os.path.join(above, person), os.path.join(above, name))
    (broken,) = (folder / "real").glob("person_11/*.png")
    broken.rename(broken.with_name(f"broken\n{FORGED}.png")).write_bytes(b"")
    (photo,) = (folder / "real").glob("person_10/*.png")
    picture, exif = Image.open(photo), Image.Exif()
    exif[0x010E] = exif[0x013B] = "alice-the-user"  # ImageDescription and Artist
    picture.convert("RGB").save(photo.with_suffix(".jpg"), exif=exif)
    photo.unlink()


def is_printable(line: str) -> bool:
    """Whether a terminal shows each character as itself; a number and its unit stand apart by a no-break space."""
    return line.replace("\u00a0", " ").isprintable()


def check(ended: Ended) -> None:
    assert ended.code == 0, ended.out + ended.err
    for line in (ended.out + ended.err).splitlines():
        assert is_printable(line), ascii(line)
        assert not line.startswith(FORGED)


def read_everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Each file that may be passed on, and each picture within a page."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != PRIVATE_NAME:
            content = path.read_bytes()
            yield str(path.relative_to(folder)), content
            for number, packed in enumerate(re.findall(rb"base64,([A-Za-z0-9+/=]+)", content)):
                yield f"{path.name}, picture {number}", base64.b64decode(packed)


@pytest.mark.parametrize("part", ["my output", "report"])
def test_no_file_that_may_be_passed_on_tells_a_path_a_user_or_a_host(disk: Path, part: str) -> None:
    found = {
        (name, word)
        for name, content in read_everything(disk / part)
        for word in (*PRIVATE, str(disk), "Exif")
        if word.encode() in content or word.encode("utf-16-le") in content or word.encode("utf-32-le") in content
    }
    assert found == set()
    assert sum(1 for _ in read_everything(disk / part)) > 10


def test_what_a_resume_needs_is_in_one_file(disk: Path) -> None:
    (run,) = (disk / "my output").glob("second_*")
    stored = json.loads((run / PRIVATE_NAME).read_text())
    assert {one["shown"]: one["path"] for one in stored["paths"]}["…/my data"] == str(disk / "my data")
    assert json.loads((run / "config.json").read_text())["task_section"]["data_root"] == "…/my data"


def test_a_hostile_name_forges_no_line_of_a_log_and_is_shown_in_it(disk: Path) -> None:
    for run in (disk / "my output").glob("*_tiny_*"):
        lines = (run / "logs/losses.logs").read_text(encoding="utf-8").split("\n")
        assert not any(line.startswith(FORGED) for line in lines)
        assert all(map(is_printable, lines))
    assert any("left out real/person_11/broken⟨U+000A⟩# skipped epoch 1" in line for line in lines)


def test_every_hostile_name_is_in_the_results_as_printable_text(disk: Path) -> None:
    scores = (disk / "report" / "scores.csv").read_text(encoding="utf-8")
    assert "\x1b" not in scores
    for shown in ("caf⟨U+DCE9⟩", "a⟨U+000A⟩# skipped", "b⟨U+001B⟩[31mred", "gpj⟨U+202E⟩gnp", "c⟨U+2028⟩d"):
        assert shown in scores


def test_pictures_in_a_page_are_drawn_anew_and_carry_no_exif(disk: Path) -> None:
    (run,) = (disk / "my output").glob("second_*")
    pictures = [content for name, content in read_everything(run) if "picture" in name]
    assert pictures
    for content in pictures:
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is not None
