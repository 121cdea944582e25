"""The command line of prepare_faces.py and its messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.prepare.command_line import Inspection, parse_command_line
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings, Request


def test_every_option_reaches_the_request() -> None:
    words = "in out --layout ffpp --frames 8 --label fake --faces all --image-size 112 --min-face 60 --picture jpg"
    more = " --shards --workers 3 --validation-share .1 --test-share 0.2 --split-seed 7 --clip-timeout 9.5"
    read = parse_command_line([*(words + more).split(), "--overwrite", "--retry"])
    crop = CropSettings(frames=8, faces="all", image_size=112, min_face=60, picture="jpg")
    shares = {"validation_share": 0.1, "test_share": 0.2, "split_seed": 7}
    places = {"source": Path("in"), "dest": Path("out"), "layout": "ffpp", "label": 1, "crop": crop, "shards": True}
    rest = {"workers": 3, "clip_timeout": 9.5, "overwrite": True, "retry": True}
    assert read == Request(**places, **shares, **rest)  # type: ignore[arg-type]


def test_the_defaults_are_those_of_the_settings() -> None:
    read = parse_command_line(["in", "out"])
    assert isinstance(read, Request)
    assert (read.crop, read.label, read.shards, read.validation_share) == (CropSettings(), None, False, 0.2)
    assert read.workers >= 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "SOURCE, DEST"),
        ("in", "DEST"),
        ("in out more", "more"),
        ("in out --frames 0", "--frames: '0' is not a whole number from 1"),
        ("in out --frames 2.5", "'2.5' is not a whole number"),
        ("in out --frames nan", "'nan' is not a whole number"),
        ("in out --image-size 9", "--image-size"),
        ("in out --workers -1", "--workers"),
        ("in out --validation-share 1", "from 0 to below 1"),
        ("in out --validation-share .5 --test-share .5", "leave nothing to train on"),
        ("in out --validation-share nan", "'nan' is not a number"),
        ("in out --clip-timeout 0", "--clip-timeout"),
        ("in out --label maybe", "'real', 'fake'"),
        ("in out --layout nothing", "ffpp_sbi"),
        ("in out --picture gif", "'png', 'jpg'"),
        ("in out --split-seed -3", "--split-seed"),
        ("in out --frame 3", "--frame"),
        ("check", "MANIFEST"),
        ("describe a b", "b"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_expected(words: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_command_line(words.split())
    assert expected in caught.value.as_text()
    said = caught.value.as_text()
    assert any(way in said for way in ("--help", "lower them", "write one of these", "did you mean"))


def test_check_and_describe_take_a_manifest_or_its_folder(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.arrow"
    manifest.touch()
    assert parse_command_line(["check", str(tmp_path)]) == Inspection("check", manifest)
    assert parse_command_line(["check", str(manifest), "--full"]) == Inspection("check", manifest, full=True)
    assert parse_command_line(["describe", str(manifest)]) == Inspection("describe", manifest)


def test_a_folder_that_is_called_check_can_be_prepared() -> None:
    read = parse_command_line(["./check", "out"])
    assert isinstance(read, Request)
    assert read.source == Path("check")


def test_help_shows_the_options_and_three_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_command_line(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert text.count("\n  python prepare_faces.py") == 3
    for word in ("--shards", "--clip-timeout", "check MANIFEST", "exit codes", "ffpp_sbi"):
        assert word in text
