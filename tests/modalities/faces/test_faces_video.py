"""Chosen frames of real files: the right ones, whatever the container claims; bad files become one clear reason."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_videos import (
    claim_frames,
    claim_size,
    cut_end,
    read_number,
    rotate_video,
    write_counting_video,
    write_video,
)
from sharpstudent.modalities.faces import video
from sharpstudent.modalities.faces import video as video_streams
from sharpstudent.modalities.faces.video import SampledVideo, UnreadableVideo, choose_frames, sample_video

FORMATS = [("FFV1", "avi"), ("FFV1", "mkv"), ("mp4v", "mp4"), ("MJPG", "avi"), ("VP80", "webm")]
ROOT = Path(__file__).resolve().parents[3]
CLIPS = sorted((ROOT.parent / "shared" / "data" / "videos").glob("*.mp4"))


def sample(path: Path, count: int = 5, backend: str | None = "opencv") -> SampledVideo[int]:
    return sample_video(path, count, lambda _, image: read_number(image), backend=backend)


# --- Which frames ---------------------------------------------------------------------------------------------------


def test_frames_are_spread_from_the_first_to_the_last() -> None:
    assert choose_frames(100, 5) == (0, 25, 50, 74, 99)
    assert choose_frames(3, 32) == (0, 1, 2)
    assert choose_frames(100, 1) == (0,)
    assert choose_frames(0, 5) == choose_frames(5, 0) == ()
    for frames in (31, 32, 33, 4800, 10**7):
        chosen = choose_frames(frames, 32)
        assert len(chosen) == min(frames, 32)
        assert (chosen[0], chosen[-1]) == (0, frames - 1)
        assert len(set(np.diff(chosen))) <= 2


@pytest.mark.parametrize(("codec", "suffix"), FORMATS)
def test_the_pixels_are_those_of_the_chosen_frames(codec: str, suffix: str, tmp_path: Path) -> None:
    found = sample(write_counting_video(tmp_path / f"a.{suffix}", 40, codec=codec))
    assert found.frames == 40
    assert found.indices == (0, 10, 20, 29, 39)
    assert found.results == {index: index for index in found.indices}
    assert found.failed == {}
    assert found.backend == "opencv"


@pytest.mark.parametrize("claimed", [0, 1, 13, 39, 41, 90, 2**31, 2**32 - 1])
def test_a_container_with_a_wrong_frame_count_gives_the_same_frames(claimed: int, tmp_path: Path) -> None:
    path = claim_frames(write_counting_video(tmp_path / "a.avi", 40, codec="MJPG"), claimed)
    found = sample(path)
    assert found.frames == 40
    assert found.results == {0: 0, 10: 10, 20: 20, 29: 29, 39: 39}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_video_gives_the_frames_that_can_be_decoded(share: float, tmp_path: Path) -> None:
    found = sample(cut_end(write_counting_video(tmp_path / "a.mkv", 40), share))
    assert 4 < found.frames < 40
    assert found.indices == choose_frames(found.frames, 5)
    assert found.results == {index: index for index in found.indices}


def test_every_frame_is_given_once_and_in_order_when_the_count_is_true(tmp_path: Path) -> None:
    seen: list[int] = []
    sample_video(write_counting_video(tmp_path / "a.avi", 30), 7, lambda index, _: seen.append(index), backend="opencv")
    assert seen == list(choose_frames(30, 7))


def test_frames_are_rgb_and_stand_upright(tmp_path: Path) -> None:
    image = np.full((48, 64, 3), (200, 100, 20), np.uint8)
    image[:24, :32] = (20, 40, 220)
    corners = {0: (0, 0), 90: (0, -1), 180: (-1, -1), 270: (-1, 0)}  # clockwise: where the top left corner goes
    for degrees, corner in corners.items():
        path = write_video(tmp_path / f"{degrees}.mp4", [image] * 3, codec="mp4v")
        if degrees:
            rotate_video(path, degrees)
        found = sample_video(path, 1, lambda _, image: image, backend="opencv").results[0]
        assert found.dtype == np.uint8
        assert found.shape == ((48, 64, 3) if degrees % 180 == 0 else (64, 48, 3))
        np.testing.assert_allclose(found[corner], (20, 40, 220), atol=25)
        opposite = (-1 - corner[0], -1 - corner[1])
        np.testing.assert_allclose(found[opposite], (200, 100, 20), atol=25)


def test_a_name_with_spaces_signs_and_other_letters_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = write_counting_video(tmp_path / "a.avi", 6)
    monkeypatch.chdir(tmp_path)
    for name in ("wït öther ñ 視頻 %03d #1.avi", "concat:a.avi", "http:", "-i.mp4"):
        path = Path(name)
        path.write_bytes(plain.read_bytes())
        assert sample(path).frames == 6


# --- Bad files ------------------------------------------------------------------------------------------------------


def write_bad(kind: str, folder: Path) -> Path:
    path = folder / "bad.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(20_000))
    elif kind == "html":
        path.write_text("<!DOCTYPE html><html><body>404 not found</body></html>" * 50)
    elif kind == "playlist":
        path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    elif kind == "no index":
        cut_end(write_counting_video(path, 20, codec="mp4v"), 0.6)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "name":
        path = folder / os.fsdecode(b"\xff\xfe.mp4")
        write_counting_video(folder / "a.avi", 4).rename(path)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("absent", "No such file"),
        ("empty", "0 bytes"),
        ("garbage", "no video that can be read"),
        ("html", "can be"),
        ("playlist", "can be"),
        ("no index", "no video that can be read"),
        ("folder", "is a folder, not a file"),
        ("pipe", "is a named pipe, not a file"),
        ("name", "no valid UTF-8"),
    ],
)
@pytest.mark.parametrize("backend", ["opencv", None])
def test_a_file_that_is_no_video_is_refused_with_the_reason(
    kind: str, reason: str, backend: str | None, tmp_path: Path
) -> None:
    path = write_bad(kind, tmp_path)
    with pytest.raises(UnreadableVideo) as caught:
        sample(path, backend=backend)
    assert caught.value.path == str(path)
    assert reason in caught.value.reason


def test_frames_too_large_are_refused_before_one_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = claim_size(write_counting_video(tmp_path / "a.avi", 4), 9000, 9000)
    monkeypatch.setattr(video_streams.OpenCvStream, "grab", lambda self: pytest.fail("decoded"))
    with pytest.raises(UnreadableVideo, match="9000 x 9000 px, more than the 50 megapixels"):
        sample(path)


def test_the_size_limit_applies_to_a_stream_without_a_declared_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_counting_video(tmp_path / "a.avi", 4)
    monkeypatch.setattr(video, "LARGEST_FRAME", 1000)
    monkeypatch.setattr(video_streams.OpenCvStream, "_read_number", lambda self, key: 0)
    found = sample(path)
    assert found.results == {}
    assert set(found.failed) == {0, 1, 2, 3}
    assert "64 x 48 px" in found.failed[0]


def test_damage_prints_nothing_and_leaves_the_log_level_unchanged() -> None:
    """In a process of its own: FFmpeg's level is read once a process."""
    code = f"""
import os, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "helpers")!r}]
import cv2
from pathlib import Path
from sharpstudent.modalities.faces.video import UnreadableVideo, sample_video
path = Path(sys.argv[1])
before = cv2.utils.logging.getLogLevel()
for name in ("garbage.mp4", "damaged.avi"):
    try:
        sample_video(path / name, 5, lambda index, image: print("use", file=sys.stderr), backend="opencv")
    except UnreadableVideo:
        pass
assert cv2.utils.logging.getLogLevel() == before
assert "OPENCV_FFMPEG_LOGLEVEL" not in os.environ
"""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        damaged = write_counting_video(Path(folder) / "damaged.avi", 20)
        content = bytearray(damaged.read_bytes())
        content[2000:8000:50] = bytes(len(content[2000:8000:50]))
        damaged.write_bytes(content)
        (Path(folder) / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
        ended = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0, ended.stderr
    assert set(ended.stderr.split()) <= {"use"}  # what the caller prints comes through


def test_threads_that_silence_opencv_at_the_same_time_leave_everything_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They end in another order than that in which they began."""
    monkeypatch.delenv("OPENCV_FFMPEG_LOGLEVEL", raising=False)
    level = cv2.utils.logging.getLogLevel()
    first, second = video.silence_opencv(), video.silence_opencv()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.environ["OPENCV_FFMPEG_LOGLEVEL"]  # the second is still at work
    second.__exit__(None, None, None)
    assert "OPENCV_FFMPEG_LOGLEVEL" not in os.environ
    assert cv2.utils.logging.getLogLevel() == level


# --- torchcodec -----------------------------------------------------------------------------------------------------


def test_opencv_reads_where_torchcodec_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_streams, "_loads", lambda library: False)
    monkeypatch.setattr(sys, "platform", "linux")
    video_streams.torchcodec_loads.cache_clear()
    try:
        assert not video_streams.torchcodec_loads()
        assert sample(write_counting_video(tmp_path / "a.avi", 6), backend=None).backend == "opencv"
    finally:
        video_streams.torchcodec_loads.cache_clear()


class FakeFrames:
    """torchcodec's packets over OpenCV's frames: a packet is a picture, and the decoder is two frames behind."""

    fail_at: int | None = None
    claimed: int | None = None

    def __init__(self, path: str) -> None:
        capture = cv2.VideoCapture(path)
        self.images: list[np.ndarray] = []
        while (read := capture.read())[0]:
            self.images.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
        self.streams = [self]
        self.metadata = types.SimpleNamespace(
            num_frames_from_header=self.claimed if self.claimed is not None else len(self.images), width=64, height=48
        )
        self.waiting: list[np.ndarray] = []

    def __iter__(self) -> object:
        return iter(self.images)

    def make_decoder(self, *, num_ffmpeg_threads: int) -> FakeFrames:
        assert num_ffmpeg_threads == 1
        return self

    def decode(self, packet: np.ndarray) -> list[np.ndarray]:
        self.waiting.append(packet)
        if self.fail_at is not None and len(self.waiting) > self.fail_at:
            raise RuntimeError("Failed to send packet to decoder")
        return [self.waiting[-3]] if len(self.waiting) > 2 else []

    def drain(self) -> list[np.ndarray]:
        return self.waiting[-2:]


class FakeConverter:
    def convert(self, frame: np.ndarray) -> object:
        import torch

        return types.SimpleNamespace(data=torch.from_numpy(frame).permute(2, 0, 1))


@pytest.fixture
def fake_torchcodec(monkeypatch: pytest.MonkeyPatch) -> type[FakeFrames]:
    decoders = types.ModuleType("torchcodec.decoders")
    made = type("Made", (FakeFrames,), {})
    decoders.Demuxer, decoders.ColorConverter = made, FakeConverter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    return made


def test_torchcodec_decodes_the_same_frames(fake_torchcodec: type[FakeFrames], tmp_path: Path) -> None:
    path = write_counting_video(tmp_path / "a.avi", 23)
    found = sample(path, backend="torchcodec")
    assert found.backend == "torchcodec"
    assert (found.indices, found.results) == (sample(path).indices, sample(path).results)


@pytest.mark.parametrize(("fail_at", "claimed"), [(10, None), (0, None), (None, 40), (None, 0), (None, 11)])
def test_a_file_that_torchcodec_cannot_read_to_its_end_is_read_by_opencv(
    fail_at: int | None, claimed: int | None, fake_torchcodec: type[FakeFrames], tmp_path: Path
) -> None:
    fake_torchcodec.fail_at, fake_torchcodec.claimed = fail_at, claimed
    found = sample(write_counting_video(tmp_path / "a.avi", 23), backend="torchcodec")
    assert found.backend == "opencv"
    assert found.results == {index: index for index in choose_frames(23, 5)}


@pytest.mark.parametrize("clip", CLIPS or [Path("absent")], ids=lambda path: path.stem)
def test_both_backends_give_the_same_frames_of_real_clips(clip: Path) -> None:
    if not clip.is_file():
        pytest.skip("no clips at ../shared/data/videos")
    if not video_streams.torchcodec_loads():
        pytest.skip("torchcodec is not installed, or finds no FFmpeg libraries (LD_LIBRARY_PATH)")
    found = {
        backend: sample_video(clip, 4, lambda _, image: image, backend=backend) for backend in ("opencv", "torchcodec")
    }
    assert found["torchcodec"].backend == "torchcodec"
    assert found["torchcodec"].indices == found["opencv"].indices
    for index, image in found["opencv"].results.items():
        assert np.abs(image.astype(int) - found["torchcodec"].results[index]).mean() < 2


# --- PyAV: what OpenCV does not decode ------------------------------------------------------------------------------


def write_by_pyav(path: Path, frames: int, codec: str, times_ms: list[int] | None = None, **options: str) -> Path:
    """A counting video of any codec, with frames at the given times; default: 25 a second."""
    av = pytest.importorskip("av", reason="other codecs need the extra `video`")
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 6 * index, np.uint8), "rgb24")
            frame.pts, frame.time_base = (times_ms or range(0, 40 * frames, 40))[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


AV1 = {"codec": "libsvtav1", "preset": "12"}


@pytest.mark.parametrize("suffix", ["mp4", "webm", "mkv"])
def test_av1_is_read_by_pyav_frame_by_frame(suffix: str, tmp_path: Path) -> None:
    found = sample(write_by_pyav(tmp_path / f"a.{suffix}", 12, **AV1), backend=None)
    assert (found.frames, found.backend, found.failed) == (12, "pyav", {})
    assert found.results == {index: index for index in choose_frames(12, 5)}


def test_without_pyav_the_codec_and_the_package_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_by_pyav(tmp_path / "a.mp4", 4, **AV1)
    monkeypatch.setattr(video_streams.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnreadableVideo) as caught:
        sample(path)
    assert "(codec AV1); PyAV decodes more codecs than OpenCV" in caught.value.reason
    assert "pip install torchcodec~=" in caught.value.reason
    assert " av~=" in caught.value.reason


def test_pyav_gives_the_frames_of_opencv_upright(tmp_path: Path) -> None:
    image = np.full((48, 64, 3), (200, 100, 20), np.uint8)
    image[:24, :32] = (20, 40, 220)
    pytest.importorskip("av", reason="PyAV needs the extra `video`")
    for degrees in (0, 90, 180, 270):
        path = write_video(tmp_path / f"{degrees}.mp4", [image] * 3, codec="mp4v")
        if degrees:
            rotate_video(path, degrees)
        one, other = (
            sample_video(path, 1, lambda _, image: image, backend=backend).results[0] for backend in ("opencv", "pyav")
        )
        assert one.shape == other.shape, degrees
        assert np.abs(one.astype(int) - other).mean() < 3, degrees


@pytest.mark.parametrize("clip", CLIPS[:2] or [Path("absent")], ids=lambda path: path.stem)
def test_pyav_gives_the_frames_of_real_clips(clip: Path) -> None:
    if not clip.is_file():
        pytest.skip("no clips at ../shared/data/videos")
    pytest.importorskip("av", reason="PyAV needs the extra `video`")
    one, other = (sample_video(clip, 3, lambda _, image: image, backend=name) for name in ("opencv", "pyav"))
    assert one.indices == other.indices
    for index, image in one.results.items():
        assert np.abs(image.astype(int) - other.results[index]).mean() < 2


# --- Times and lengths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("backend", ["opencv", "pyav"])
def test_a_variable_frame_rate_drops_and_doubles_no_frame(suffix: str, backend: str, tmp_path: Path) -> None:
    times = [0, 40, 45, 200, 210, 900, 901, 1000, 2000, 2001, 3000, 9010]
    found = sample(write_by_pyav(tmp_path / f"a.{suffix}", 12, "libx264", times), backend=backend)
    assert found.frames == 12
    assert found.results == {index: index for index in choose_frames(12, 5)}


def test_a_clip_of_one_frame_is_a_clip(tmp_path: Path) -> None:
    found = sample(write_by_pyav(tmp_path / "a.mp4", 1, "libx264"))
    assert (found.frames, found.results) == (1, {0: 0})


def write_zero(kind: str, folder: Path) -> Path:
    """A header without frames: of an AVI that claims none, of an MP4 whose pictures are cut off, of a Matroska file."""
    if kind == "avi":
        path = claim_frames(write_counting_video(folder / "a.avi", 20, codec="MJPG"), 0)
        path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"movi") + 4])
        return path
    path = write_by_pyav(folder / f"a.{kind}", 12, "libx264", **({"movflags": "faststart"} if kind == "mp4" else {}))
    content = path.read_bytes()
    # The pictures of the MP4 follow its table (faststart), and those of Matroska begin with the first cluster.
    path.write_bytes(content[: content.index(b"mdat") + 4 if kind == "mp4" else content.index(b"\x1f\x43\xb6\x75")])
    return path


@pytest.mark.parametrize("kind", ["avi", "mp4", "mkv"])
def test_a_header_without_frames_is_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match=r"has no frame that can be decoded|is cut off"):
        sample(write_zero(kind, tmp_path), backend=None)
