"""prepare_faces.py as a user types it: a FaceForensics++ tree, then the real videos where they are at hand."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from ffpp_tree import MODEL_FILES
from workplace import ROOT, Workplace

SCRIPT = str(ROOT / "prepare_faces.py")
SMOKE = ROOT.parent / "shared" / "data" / "swap_smoke"
VIDEOS = ROOT.parent / "shared" / "data" / "videos"
needs_models = pytest.mark.skipif(
    not all(path.is_file() for path in MODEL_FILES), reason="the face models are absent: make face-models"
)


@pytest.fixture
def place(workplace: Workplace, ffpp_root: Path) -> Workplace:
    (workplace / "my data").mkdir()
    (workplace / "my data/FaceForensics++ é").symlink_to(ffpp_root)
    return workplace


def read_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_data_set_with_landmarks_is_prepared_without_models_resumed_checked_and_described(place: Workplace) -> None:
    words = (SCRIPT, "my data/FaceForensics++ é", "my set", "--image-size", "64", "--workers", "2")
    stopped = place.start(*words)
    end = time.monotonic() + 60
    while not list((place / "my set").glob("parts/*.arrow")) and time.monotonic() < end:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    _, text = stopped.communicate(timeout=400)
    assert stopped.returncode in (143, 0)
    assert "Traceback" not in text

    ended = place.run(*words)
    assert (ended.code, ended.err) == (0, "")
    assert "8 faces of 4 people" in ended.out
    files = read_files(place / "my set")
    assert {"manifest.arrow", "preparation.json", "quarantine.csv"} <= files.keys()
    again = place.run(*words[:-1], "1")
    assert "everything is done already" in again.out
    assert read_files(place / "my set") == files

    fresh = place.call(*words[:2], "fresh", *words[3:])
    assert fresh.code == 0, fresh.err
    assert {name.replace("fresh", "my set"): content for name, content in read_files(place / "fresh").items()} == files
    assert place.call(SCRIPT, "check", "my set").code in (0, 1)
    described = place.call(SCRIPT, "describe", "my set/manifest.arrow")
    assert described.code == 0, described.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nowhere", "set"), "does not exist"),
        (("configs", "set"), "has no layout that is known"),
        (("my data", "my data/inside"), "lies in SOURCE"),
        (("my data", "configs"), "holds something else"),
        (("my data", "set", "--frames", "none"), "--frames"),
        (("check", "nowhere"), "nowhere"),
    ],
)
def test_an_invalid_argument_is_one_message_and_exit_code_2(
    place: Workplace, words: tuple[str, ...], expected: str
) -> None:
    ended = place.call(SCRIPT, *words)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert expected in ended.err
    assert not (place / "set").exists()


@pytest.mark.slow
@needs_models
@pytest.mark.skipif(not VIDEOS.is_dir(), reason="../shared/data/videos is absent")
def test_real_videos_give_faces_and_the_broken_ones_their_reasons(place: Workplace) -> None:
    (place / "weights").symlink_to(ROOT / "weights")
    videos = place / "videos"
    videos.mkdir()
    for path in sorted(VIDEOS.glob("*.mp4"))[:3]:
        (videos / path.name).symlink_to(path)
    whole = (VIDEOS / "d18.mp4").read_bytes()
    (videos / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "page.mp4").write_bytes(b"<html>not found</html>")
    ended = place.run(SCRIPT, "videos", "set", "--frames", "4", timeout=300)
    assert (ended.code, ended.err) == (0, "")
    assert "12 faces" in ended.out
    quarantine = (place / "set/quarantine.csv").read_text()
    for name in ("truncated.mp4", "empty.mp4", "page.mp4"):
        assert quarantine.count(name) >= 1


@needs_models
@pytest.mark.skipif(not SMOKE.is_dir(), reason="../shared/data/swap_smoke is absent")
def test_the_shipped_detector_reads_the_frames_of_neural_swaps_and_claims_nothing(place: Workplace) -> None:
    script = str(ROOT / "evaluate_model.py")
    ended = place.run(script, "deepfake-small", "--data", f"smoke={SMOKE}", "--out", "report", timeout=300)
    assert (ended.code, ended.err) == (0, "")
    assert "12 fake" in ended.out
    assert "4 real" in ended.out
    assert "not shown to be better than chance" in ended.out
