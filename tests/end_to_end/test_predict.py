"""predict.py as a user runs it: pictures and videos of drawn faces through a small detector, and bad inputs."""

from __future__ import annotations

import contextlib
import hashlib
import html
import http.server
import importlib.util
import io
import json
import os
import re
import sys
import threading
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
import torch
from drawn_faces import draw_face
from made_videos import cut_end, write_video
from numpy.typing import NDArray
from sharpstudent.checkpoint.store import export_model, load_checkpoint, save_checkpoint
from sharpstudent.core import shipped
from sharpstudent.core.errors import RunInterrupted
from sharpstudent.core.naming import unescape_cell
from sharpstudent.models.vision import build_classifier
from sharpstudent.tasks.deepfake.prepare.crop_frame import FrameCropper, Picture
from sharpstudent.tasks.deepfake.sources import face_crops
from workplace import ROOT, Ended, Workplace

PREDICT, SIDE = "predict.py", 64
MODELS = ROOT / "weights"
pytestmark = pytest.mark.skipif(
    not all((ROOT / path).is_file() for path in (face_crops.DETECTOR_FILE, face_crops.MESH_FILE)),
    reason="weights/ lacks the two face models",
)


def make_about(high: float, low: float) -> dict[str, Any]:
    """The description of a checkpoint whose thresholds are these margins."""
    points = {
        "fpr_1pct": {"threshold": high, "tpr": 0.6, "fpr": 0.01},
        "eer": {"threshold": low, "tpr": 0.9, "fpr": 0.1},
    }
    calibration = {
        "fitted_on": "validation of this run: 9 frames of 9 people",
        "temperature": 1.5,
        "log_loss": [0.7, 0.6],
        "ece": [0.1, 0.1],
        "operating_points": {"frame": points},
    }
    facts = {"classes": ["real", "fake"], "image_size": SIDE, "input": "RGB in 0..1, no mean/std"}
    return {
        **facts,
        "facts": facts,
        "architecture": "test_efficientnet",
        "dropout": 0.2,
        "task": "deepfake",
        "calibration": calibration,
    }


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_classifier("test_efficientnet", classes=2, dropout=0.2, side=SIDE).state_dict()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, torch.Tensor]) -> Workplace:
    """A folder with a detector, pictures and a video of one drawn person."""
    found = Workplace(tmp_path_factory.mktemp("predict"))
    (found / "weights").symlink_to(MODELS)
    for name, high, low in (("model", 90.0, -90.0), ("sure", -90.0, -90.0), ("calm", 90.0, 90.0)):
        save_checkpoint(found / f"{name}.pth", {"model": tensors}, about=make_about(high, low))
    (found / "in/sub").mkdir(parents=True)
    for seed, name in ((1, "a.png"), (2, "sub/b.png")):
        write_picture(found / "in" / name, draw_face(seed, 200)[0])
    write_video(found / "in/film.avi", film(9))
    return found


def film(frames: int) -> list[NDArray[np.uint8]]:
    face = draw_face(3, 160)[0]
    return [np.ascontiguousarray(np.roll(np.pad(face, ((8, 8), (40, 40), (0, 0))), i, axis=1)) for i in range(frames)]


def write_picture(path: Path, image: NDArray[np.uint8]) -> Path:
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


def predict(place: Workplace, *words: str) -> Ended:
    return place.call(PREDICT, *words, "--device", "cpu")


def read_lines(ended: Ended) -> dict[str, dict[str, Any]]:
    """The lines of --json by the name of the file."""
    assert ended.code == 0, ended.err
    found = [json.loads(line) for line in ended.out.splitlines()]
    return {os.path.basename(one["input"]): one for one in found}


def test_a_folder_gives_a_sentence_a_page_and_a_row_for_each_file(place: Workplace, tmp_path: Path) -> None:
    ended = predict(place, "model.pth", "in", "--out", str(tmp_path / "out"), "--annotate")
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "out/predictions.json").read_text())
    jsonschema.validate(found, json.loads((ROOT / "docs/predictions.schema.json").read_text()))
    assert found["is_complete"]
    assert [Path(one["input"]).name for one in found["predictions"]] == ["a.png", "film.avi", "b.png"]
    for one in found["predictions"]:
        assert one["outcome"] == "inconclusive"
        assert "between its thresholds" in one["sentence"]
        assert len(one["sentence"].split()) <= 30
        assert one["sentence"] in ended.out
        assert "cannot prove" in one["reasons"][-1]
        page = (tmp_path / "out" / one["page"]).read_text()
        assert one["sentence"] in html.unescape(page).replace("\u00a0", " ")
        assert "data:image/jpeg" in page
        assert "<script" not in page
        assert "http" not in page.replace("http-equiv", "")
        assert (tmp_path / "out" / one["rows"]).read_text().startswith("frame,second,person,")
    video = found["predictions"][1]["details"]
    assert (video["kind"], video["frames"], len(video["people"])) == ("video", 9, 1)
    assert video["timeline"]["second"] == [0]
    assert len(list((tmp_path / "out").glob("*.annotated.mp4"))) == 1
    assert "without sound" in ended.out
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) == 4


def test_the_answer_follows_the_stored_thresholds(place: Workplace) -> None:
    for model, outcome, words in (
        ("sure", "fake_likely", "1.0 % of the real"),
        ("calm", "no_sign", "60 % of known fakes"),
    ):
        (one,) = read_lines(predict(place, f"{model}.pth", "in/a.png", "--json")).values()
        assert one["outcome"] == outcome
        assert words in one["sentence"]


@pytest.mark.parametrize("views", [(), ("--views", "flip+crops")])
def test_scores_are_those_of_an_evaluation_to_the_last_bit(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: tuple[str, ...]
) -> None:
    from sharpstudent.tasks.deepfake.evaluation import assemble

    monkeypatch.setattr(assemble, "write_report", lambda folder, *_: [folder])
    (tmp_path / "set/real").mkdir(parents=True)
    (tmp_path / "set/fake").mkdir()
    for number in range(5):
        folder = tmp_path / "set" / ("real" if number < 3 else "fake")
        write_picture(folder / f"{number}.png", draw_face(10 + number, 220)[0])
    ended = place.call(
        *("evaluate_model.py", "model.pth", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "report")),
        *("--workers", "0", "--rounds", "10", "--device", "cpu", "--people", "files", *views),
    )
    assert ended.code == 0, ended.err
    scores = (tmp_path / "report/scores.csv").read_text().splitlines()
    columns = scores[0].split(",")
    evaluated: dict[str, float] = {}
    for line in scores[1:]:
        row = dict(zip(columns, line.split(","), strict=True))
        evaluated[Path(unescape_cell(row["sample_id"])).parent.name] = float(unescape_cell(row["margin"]))
    # The same files in the order of the evaluation, which decides what stands in one batch.
    files = sorted((tmp_path / "set").rglob("*.png"), key=lambda path: list(evaluated).index(path.stem))
    found = read_lines(predict(place, "model.pth", *map(str, files), "--json", *views))
    assert {Path(name).stem: one["details"]["people"][0]["margin"] for name, one in found.items()} == evaluated


def read_box(place: Workplace, picture: Path, out: Path) -> list[float]:
    """The box of the only face, by the table of single faces."""
    (one,) = read_lines(predict(place, "model.pth", str(picture), "--json", "--out", str(out))).values()
    columns, row = ((out / one["rows"]).read_text().splitlines()[line].split(",") for line in (0, 1))
    return [float(row[columns.index(side)]) for side in ("left", "top", "right", "bottom")]


def test_bad_inputs_are_rows_with_their_reason_and_the_rest_goes_on(place: Workplace, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    good = draw_face(1, 200)[0]
    write_picture(bad / "good.png", good)
    write_picture(bad / "turned.png", np.ascontiguousarray(np.rot90(good)))
    write_picture(bad / "nobody.png", np.full((200, 200, 3), 90, np.uint8))
    write_picture(bad / "small.png", cv2.resize(good, (56, 56), interpolation=cv2.INTER_AREA))
    (bad / "empty.jpg").write_bytes(b"")
    (bad / "text.jpg").write_text("no picture")
    (bad / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (bad / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 60)
    (bad / "noise.mp4").write_bytes(b"\0" * 500)
    header = b"P6 20000 20000 255\n"
    (bad / "huge.png").write_bytes(header + b"\0" * 100)
    cut_end(write_video(bad / "cut.avi", film(30), codec="MJPG"), 0.5)
    os.mkfifo(bad / "pipe.jpg")
    (bad / "gone.jpg").symlink_to(bad / "nothing.jpg")
    with open(os.fsencode(bad) + b"/caf\xe9.png", "wb") as file:
        file.write((bad / "good.png").read_bytes())
    found = read_lines(predict(place, "model.pth", str(bad), str(tmp_path / "absent.jpg"), "--json"))
    sentences = {name: one["sentence"] for name, one in found.items()}
    for name, words in {
        "empty.jpg": "empty",
        "text.jpg": "no picture",
        "pointer.png": "Git LFS pointer",
        "phone.heic": "HEIC" if importlib.util.find_spec("pillow_heif") is None else "no picture",
        "noise.mp4": "no video",
        "huge.png": "too large",
        "pipe.jpg": "named pipe",
        "gone.jpg": "No such file",
        "absent.jpg": "No such file",
    }.items():
        assert found[name]["status"] == "unreadable", name
        assert words in sentences[name], sentences[name]
    for name in ("good.png", "turned.png", "caf⟨U+DCE9⟩.png"):
        assert found[name]["score"] is not None, name
    for name, words in {"nobody.png": "no face", "small.png": "40 px"}.items():
        assert found[name]["outcome"] == "inconclusive"
        assert words in sentences[name]
    assert any("ends early" in reason for reason in found["cut.avi"]["reasons"])
    # The box of a face lies where it is in the picture as it came, whatever way up that is.
    boxes = [read_box(place, bad / name, tmp_path / name) for name in ("good.png", "turned.png")]
    left, top, right, bottom = boxes[0]
    assert np.abs(np.array([top, 200 - right, bottom, 200 - left]) - boxes[1]).max() < 5


def test_av1_and_heic_are_read_where_their_packages_are_installed(place: Workplace, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="AV1 needs the extra `video`")
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this PyAV has no encoder of AV1")
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libsvtav1", rate=5, options={"preset": "12"})
        stream.height, stream.width = film(1)[0].shape[:2]
        for image in film(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    files = [str(tmp_path / "film.mp4")]
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif  # pyright: ignore[reportMissingImports]
        from PIL import Image

        pillow_heif.from_pillow(Image.fromarray(draw_face(1, 200)[0])).save(tmp_path / "phone.heic")
        files.append(str(tmp_path / "phone.heic"))
    for words, frames in (((), 6), (("--fps", "1"), 2)):
        found = read_lines(predict(place, "model.pth", *files, "--json", *words))
        assert found["film.mp4"]["details"]["frames_with_face"] == frames
        assert all(one["score"] is not None for one in found.values())


def write_film_with_sound(path: Path, codec: str) -> None:
    """A second of the drawn person with a tone of 440 Hz."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=5)
        sound: Any = container.add_stream(codec, rate=16_000, layout="mono")
        video.height, video.width = film(1)[0].shape[:2]
        video.pix_fmt = "yuv420p"
        tone = (20_000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.int16)
        heard = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(sound.encode(heard) + sound.encode())
        for image in film(5):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(video.encode())


def read_sound(path: Path) -> tuple[str, float, NDArray[Any]]:
    """The codec of the only sound of a file, its duration [s], and its samples in -1..1."""
    import av

    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        frames = list(container.decode(stream))
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in frames])
        scaled = samples / 32_768 if samples.dtype == np.int16 else samples
        return stream.codec_context.name, len(samples) / frames[0].sample_rate, scaled


def test_an_annotated_video_keeps_its_sound(place: Workplace, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="--annotate needs the extra `video`")
    # MP4 takes AAC as it is; it cannot hold the ADPCM of old cameras.
    films = {"a.mp4": ("aac", "sound kept:"), "b.avi": ("adpcm_ima_wav", "encoded anew as AAC")}
    for name, (codec, _) in films.items():
        write_film_with_sound(tmp_path / name, codec)
    words = [str(tmp_path / name) for name in films]
    ended = predict(place, "model.pth", *words, "--out", str(tmp_path / "out"), "--annotate", "--frames", "2")
    for name, (codec, said) in films.items():
        assert said in ended.out, ended.out
        (marked,) = (tmp_path / "out").glob(f"{Path(name).stem}*.annotated.mp4")
        before, after = read_sound(tmp_path / name), read_sound(marked)
        assert (before[0], after[0]) == (codec, "aac")
        assert after[1] == pytest.approx(before[1], abs=0.1)
        if codec == "aac":
            assert np.array_equal(before[2], after[2])
        else:  # the tone is there, as loud as it was
            middle = slice(4_000, 12_000)
            assert np.std(after[2][middle]) == pytest.approx(np.std(before[2][middle]), rel=0.1)


@pytest.mark.slow  # their converters take ten seconds to import
@pytest.mark.parametrize(("ending", "module"), [("onnx", "onnxruntime"), ("xml", "openvino"), ("pte", "executorch")])
def test_an_exported_file_of_any_format_gives_the_scores_of_its_checkpoint(
    place: Workplace, tensors: dict[str, torch.Tensor], tmp_path: Path, ending: str, module: str
) -> None:
    pytest.importorskip(module, reason="the runtime of this format is an extra")
    from sharpstudent.core.types import Batch, ExportSpec
    from sharpstudent.deploy import convert
    from sharpstudent.evaluation.load_model import OpenedClassifier

    model = build_classifier("test_efficientnet", classes=2, dropout=0.2, side=SIDE).eval()
    model.load_state_dict(tensors)
    batch = Batch({"image": torch.rand(3, 3, SIDE, SIDE)}, rows={"id": ("a", "b", "c")})
    form = convert.build_form(OpenedClassifier(model), batch, ExportSpec())
    about = {**make_about(90.0, -90.0), "export": {"format": ending, "outputs": form.outputs, "side": SIDE}}
    about["export"]["inputs"] = form.describe_inputs()
    texts = {name: one if isinstance(one, str) else json.dumps(one) for name, one in about.items()}
    path = tmp_path / f"file.{ending}"
    if ending == "pte":
        convert.write_executorch(path, form, texts)
    else:
        (convert.write_onnx if ending == "onnx" else convert.write_openvino)(path, convert.to_onnx(form), texts)
    wanted = read_lines(predict(place, "model.pth", "in", "--json"))
    found = read_lines(predict(place, str(path), "in", "--json"))
    for name, one in wanted.items():
        assert found[name]["sentence"] == one["sentence"]
        assert found[name]["score"] == pytest.approx(one["score"], abs=1e-4)


def test_where_nothing_can_be_judged_the_exit_code_is_2(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("x")
    ended = predict(place, "model.pth", str(tmp_path / "a.jpg"))
    assert ended.code == 2
    assert "nothing could be judged" in ended.err
    ended = predict(place, "model.pth", str(tmp_path / "*.nothing"))
    assert ended.code == 2


def test_a_model_of_others_is_refused_until_it_is_said_which_output_means_fake(
    place: Workplace, tensors: dict[str, torch.Tensor]
) -> None:
    torch.save(tensors, place / "foreign.pth")
    words = ("foreign.pth", "in/a.png", "--architecture", "test_efficientnet", "--image-size", str(SIDE), "--json")
    ended = predict(place, *words)
    assert ended.code == 2
    assert "--fake-class" in ended.err
    one, other = (read_lines(predict(place, *words, "--fake-class", n))["a.png"] for n in "10")
    assert one["details"]["people"][0]["margin"] == -other["details"]["people"][0]["margin"]
    assert "no thresholds are stored" in one["sentence"]


def test_a_model_that_comes_with_the_package_is_named_by_its_name(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    ended = predict(place, "tiny-faces", "in/a.png")
    assert ended.code == 2
    assert "models that come with the package: none" in ended.err
    checkpoint = load_checkpoint(place / "sure.pth")
    save_checkpoint(tmp_path / "tiny-faces.pth", checkpoint.tensors, about=checkpoint.about)
    export_model(tmp_path / "tiny-faces.pth", {"epoch": 1})
    digest = hashlib.sha256((tmp_path / "tiny-faces.safetensors").read_bytes()).hexdigest()
    (tmp_path / "tiny-faces.safetensors.sha256").write_text(f"{digest}  tiny-faces.safetensors\n")
    (one,) = read_lines(predict(place, "tiny-faces", "in/a.png", "--json")).values()
    assert one["outcome"] == "fake_likely"
    ended = predict(place, "tiny-face", "in/a.png")
    assert "did you mean tiny-faces?" in ended.err


def test_a_list_a_pattern_and_an_address_are_inputs(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"in/a.png\n\nin/sub/b.png\n")))
    assert set(read_lines(predict(place, "model.pth", "-", "--json"))) == {"a.png", "b.png"}
    assert set(read_lines(predict(place, "model.pth", "in/**/*.png", "--json"))) == {"a.png", "b.png"}
    address = f"file://{place / 'in/film.avi'}"
    (one,) = read_lines(predict(place, "model.pth", address, "--every-frame", "--json")).values()
    assert one["details"]["frames"] == 9
    with serve_folder(place / "in") as server:
        words = (f"{server}/film.avi", f"{server}/none.avi", "99")
        found = read_lines(predict(place, "model.pth", *words, "--every-frame", "--json"))
    assert found["film.avi"]["details"]["frames"] == 9
    assert "no stream that can be opened" in found["none.avi"]["sentence"]
    assert "no camera that can be opened" in found["camera 99"]["sentence"]


@contextlib.contextmanager
def serve_folder(folder: Path) -> Generator[str]:
    """Serve the files of a folder over HTTP, as a network camera serves its film."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(folder))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_options_that_contradict_each_other_or_lack_a_folder_are_refused(place: Workplace) -> None:
    for words, told in (
        (("--fps", "2", "--every-frame"), "not allowed with argument --fps"),
        (("--annotate",), "add --out answers"),
        (("--annotate", "--json"), "add --out answers"),
        (("--views", "mirror"), "flip+crops"),
        (("--video-rule", "median"), "is no rule to aggregate by; known: mean, max, top10"),
    ):
        ended = predict(place, "model.pth", "in/a.png", *words)
        assert ended.code == 2
        assert told in ended.err


def test_a_run_folder_among_the_inputs_is_refused(place: Workplace) -> None:
    (place / "run_two/weights").mkdir(parents=True)
    (place / "run_two/config.json").touch()
    ended = predict(place, "model.pth", "run_two", "in/a.png")
    assert ended.code == 2
    assert "is the folder of a run, and no input" in ended.err


def test_frames_are_chosen_by_number_by_time_or_all_of_them(place: Workplace) -> None:
    for words, frames in ((("--frames", "4"), 4), (("--fps", "10"), 4), (("--every-frame",), 9)):
        (one,) = read_lines(predict(place, "model.pth", "in/film.avi", "--json", *words)).values()
        assert one["details"]["frames"] == frames, words


def test_after_a_kill_the_same_command_goes_on(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.report.predictions import PredictionFolder

    out, add, answered = tmp_path / "out", PredictionFolder.add, list[str]()

    def stop_after_one(self: Any, source: Any, *more: Any) -> Any:
        if answered:
            raise RunInterrupted("stopped", 130)  # type: ignore[arg-type]
        answered.append(source.name)
        return add(self, source, *more)

    words = ("model.pth", "in/a.png", "in/sub/b.png", "--out", str(out), "--json")
    monkeypatch.setattr(PredictionFolder, "add", stop_after_one)
    assert predict(place, *words).code == 130
    assert not json.loads((out / "predictions.json").read_text())["is_complete"]
    with open(out / "predictions.jsonl", "a") as journal:
        journal.write('{"key": "cut o')  # as a kill leaves it
    monkeypatch.setattr(PredictionFolder, "add", add)
    ended = predict(place, *words)
    assert "1 input answered before; 1 to go" in ended.err
    assert len(read_lines(ended)) == 2
    assert json.loads((out / "predictions.json").read_text())["is_complete"]
    ended = predict(place, "sure.pth", *words[1:])
    assert ended.code == 2
    assert "another model" in ended.err


class Killed(BaseException):
    """Ends the process, as far as the command can tell."""


def test_after_a_kill_within_a_video_the_same_command_goes_on_in_it(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.deploy.kept_tables import KeptTables
    from sharpstudent.deploy.predict import _Run

    add, judged = KeptTables.add, list[int]()

    def kill_after_16(self: KeptTables, *table: Any, **more: Any) -> None:
        if self.count >= 16:
            raise Killed
        add(self, *table, **more)

    def note(self: FrameCropper, picture: Picture, files: Any) -> Any:
        judged.append(picture.index)
        return find(self, picture, files)

    write_video(tmp_path / "long.avi", film(6) * 6)
    words = ("model.pth", str(tmp_path / "long.avi"), "--every-frame", "--json", "--out")
    whole = read_lines(predict(place, *words, str(tmp_path / "whole")))["long.avi"]
    with monkeypatch.context() as patch:
        patch.setattr(KeptTables, "add", kill_after_16)
        patch.setattr(_Run, "_close", lambda *_, **__: None)
        with pytest.raises(Killed):
            predict(place, *words, str(tmp_path / "out"))
    assert not (tmp_path / "out/predictions.json").exists()
    (kept,) = (tmp_path / "out").glob("*.read.jsonl")
    with open(kept, "a") as file:
        file.write('01234567 {"tables": [')  # as a kill may leave it
    find = FrameCropper.find
    monkeypatch.setattr(FrameCropper, "find", note)
    ended = predict(place, *words, str(tmp_path / "out"))
    assert "goes on after 16 samples" in ended.err
    assert judged == list(range(16, 36))
    one = read_lines(ended)["long.avi"]
    assert not kept.exists()
    # The batches are those of a command that was not killed, so that nothing differs.
    assert {**one, "seconds": 0} == {**whole, "seconds": 0}
    pages = [(tmp_path / name / one["page"]).read_text() for name in ("whole", "out")]
    assert [re.findall('base64,([^"]+)', page) for page in pages] == [re.findall('base64,([^"]+)', pages[0])] * 2


def test_a_reference_lets_it_say_what_is_unlike_the_models_material(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.deploy import familiar
    from sharpstudent.deploy.familiar import read_reference, store_reference

    monkeypatch.setattr(familiar, "LEAST_ROWS", 15)
    checkpoint = load_checkpoint(place / "sure.pth")
    save_checkpoint(tmp_path / "m.pth", checkpoint.tensors, about=checkpoint.about)
    (tmp_path / "few").mkdir()
    write_picture(tmp_path / "few/a.png", draw_face(1, 200)[0])
    ended = predict(place, str(tmp_path / "m.pth"), "in/a.png", "--reference", str(tmp_path / "few"))
    told = " ".join(ended.out.split())
    assert "cannot be told: that needs 15 rows of 10 groups, and there are 1 row of 1 group" in told
    assert "was not checked" in ended.out
    faces = [str(write_picture(tmp_path / f"few/{seed}.png", draw_face(seed, 120)[0])) for seed in range(20, 36)]
    ended = predict(place, str(tmp_path / "m.pth"), "in/a.png", "--reference", str(tmp_path / "few"))
    assert ended.code == 0, ended.err
    assert len(faces) == 16
    found = read_reference(tmp_path / "m.pth.familiar")
    assert found.about["groups"] >= 15
    noisy = np.random.default_rng(0).integers(-90, 90, (200, 200, 3)) + draw_face(1, 200)[0]
    write_picture(tmp_path / "noisy.png", np.clip(noisy, 0, 255).astype(np.uint8))
    one = read_lines(predict(place, str(tmp_path / "m.pth"), str(tmp_path / "noisy.png"), "--json"))["noisy.png"]
    assert "unlike the material" in one["sentence"]
    # A reference of another file is not used.
    opened: Any = type("Opened", (), {"path": tmp_path / "m.pth", "sha256": "other"})
    rows = np.random.default_rng(0).normal(size=(60, 8))
    store_reference(opened, found.statistics.layers, rows, [str(row) for row in range(60)], where="x")
    ended = predict(place, str(tmp_path / "m.pth"), "in/a.png")
    assert "it is of another file than m.pth" in ended.out


@pytest.mark.slow
def test_a_ray_cluster_gives_the_answers_of_one_process(place: Workplace) -> None:
    """Rows of the last bits aside: batches are filled within an input there. A broken file is a row in both."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    (place / "in/broken.png").write_bytes(b"no picture")
    try:
        words = (PREDICT, "model.pth", "in", "--device", "cpu", "--json")
        alone, spread = read_lines(place.run(*words)), read_lines(place.run(*words, "--ray"))
    finally:
        (place / "in/broken.png").unlink()
    assert alone.keys() == spread.keys()
    for name, one in alone.items():
        other = spread[name]
        assert (one["status"], one["sentence"], one["outcome"]) == (
            other["status"],
            other["sentence"],
            other["outcome"],
        )
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
    ended = place.run(PREDICT, "model.pth", "0", "--ray")
    assert ended.code == 2
    assert "--ray: is for files" in ended.err
