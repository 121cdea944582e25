"""Kinds of pictures and videos beyond JPEG and MP4: read where installed libraries can, else named with what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.video import sample_video
from sharpstudent.tasks.deepfake.layouts.listing import VIDEO_SUFFIXES, explain_file
from sharpstudent.tasks.deepfake.layouts.registry import find_clips
from sharpstudent.tasks.deepfake.sources.face import PICTURE_SUFFIXES, read_picture

PICTURE = np.repeat(np.repeat(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5, 16, 0), 16, 1)
# Suffix, and what Pillow is told to write.
PICTURES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **{".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".gif": "GIF", ".avif": "AVIF"},
    ".jp2": "JPEG2000",
}
HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(200)


@pytest.mark.parametrize("suffix", [suffix for suffix in PICTURE_SUFFIXES if suffix not in (".heic", ".heif")])
def test_each_kind_of_picture_is_found_and_read_as_it_was_written(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix.upper()}"
    Image.fromarray(PICTURE).save(path, format=PICTURES[suffix])
    assert [clip.kind for clip in find_clips(tmp_path, layout=None, label=None)[1].clips] == ["photo"]
    found = read_picture(path)
    assert found.shape == PICTURE.shape
    assert np.abs(found.astype(int) - PICTURE).mean() < 8


def test_heic_is_read_with_pillow_heif_and_named_with_the_remedy_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(HEIC)
    assert [clip.kind for clip in find_clips(tmp_path, layout=None, label=None)[1].clips] == ["photo"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(UnreadableSample, match=r"pip install pillow-heif~=\S+,"):
            read_picture(path)
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    with pytest.raises(UnreadableSample):
        read_picture(path)
    heif.register_heif_opener()
    Image.fromarray(PICTURE).save(path, format="HEIF", quality=95)
    assert np.abs(read_picture(path).astype(int) - PICTURE).mean() < 8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_not_taken_for_its_first_picture(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind.lower()}"
    one, two = Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)
    one.save(path, format=kind, save_all=True, append_images=[two])
    with pytest.raises(UnreadableSample, match="animation of 2 pictures"):
        read_picture(path)


# Suffix, and the container and codec that such files have.
VIDEOS = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".f4v"), ("mp4", "mpeg4")),
    **dict.fromkeys((".avi", ".divx"), ("avi", "mpeg4")),
    **{".mkv": ("matroska", "mpeg4"), ".webm": ("webm", "libvpx"), ".ogv": ("ogg", "libtheora")},
    **dict.fromkeys((".ts", ".mts", ".m2ts"), ("mpegts", "mpeg2video")),
    **dict.fromkeys((".3gp", ".3g2"), ("3gp", "mpeg4")),
    **dict.fromkeys((".wmv", ".asf"), ("asf", "wmv2")),
    **dict.fromkeys((".mpg", ".mpeg", ".vob"), ("mpeg", "mpeg2video")),
    ".flv": ("flv", "flv1"),
}


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_each_kind_of_video_is_found_and_decoded(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix.upper()}"
    container, codec = VIDEOS[suffix]
    try:
        with av.open(str(path), "w", format=container) as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            for seed in range(5):  # noise: a stream of a few bytes is not recognised
                noise = np.random.default_rng(seed).integers(0, 256, PICTURE.shape, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
            file.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg does not write {codec}: {error}")
    assert [clip.kind for clip in find_clips(tmp_path, layout=None, label=None)[1].clips] == ["video"]
    found = sample_video(path, 3, lambda index, image: image.shape)
    assert set(found.results.values()) == {PICTURE.shape}
    assert len(found.results) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.CR2", "raw"),
        ("a.psd", "export"),
        ("faces.zip", "unpack"),
        ("a.mp4.part", "unfinished"),
        ("notes.txt", "neither a picture nor a video"),
        ("no suffix", "neither a picture nor a video"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_to_do(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    assert words in explain_file(name)
    (rejected,) = find_clips(tmp_path, layout=None, label=None)[1].rejected
    assert (rejected.source, rejected.reason) == (str(tmp_path / name), explain_file(name))
