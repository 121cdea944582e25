"""The table of readers: every file that the project reads, with a whole example of it and the function that reads it.

A new function that opens a file needs a row here, or a place in the row that covers it, or a reason in `NEEDS_NO_ROW`:
`tests/test_readers.py` finds it in the source and fails until it has one.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import made_motion
import numpy as np
import pytest
import torch
from drawn_faces import draw_face
from safetensors.torch import save_file
from sharpstudent.checkpoint.store import export_model, load_checkpoint, save_checkpoint
from sharpstudent.core.archive import read_about
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Batch, InputSource
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.video import UnreadableVideo
from sharpstudent.report.predictions import PredictionRequest
from sharpstudent.tasks.skeleton.formats import load_motion
from sharpstudent.tasks.skeleton.graph import SKELETONS, build_skeleton
from sharpstudent.tasks.skeleton.ntu import read_skip_list
from sharpstudent.tasks.skeleton.section import SkeletonSection

ROOT = Path(__file__).resolve().parents[2]
REFUSALS = (UserError, UnreadableSample, UnreadableVideo)
PREDICTED = PredictionRequest(task="test", model="m", sha256="0" * 64)


@dataclass(frozen=True)
class Reader:
    """A row of the table.

    Attributes:
        make: Writes a whole file below a folder, and what belongs to it; returns the path that is damaged.
        read: Reads the file and returns what can be compared.
        covers: The functions of the source that open it.
        is_verified: Whether a digest or checksum finds every flip that changes a value.
        flips: How many bits are flipped, one at a time.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    covers: tuple[str, ...]
    is_verified: bool = False
    flips: int = 40


def make_weights() -> dict[str, torch.Tensor]:
    return {"head.weight": torch.arange(300.0).reshape(2, 150), "head.bias": torch.ones(2)}


def make_checkpoint(folder: Path) -> Path:
    path = folder / "best_model.pth"
    save_checkpoint(path, {"model": make_weights()}, about={"architecture": "test", "task": "deepfake"})
    return path


def make_export(folder: Path) -> Path:
    path = make_checkpoint(folder)
    export_model(path, {"epoch": 1})
    return path.with_suffix(".safetensors")


def make_index(folder: Path) -> Path:
    save_file(make_weights(), folder / "a.safetensors")
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": dict.fromkeys(make_weights(), "a.safetensors")}))
    return path


def read_weights(path: Path) -> Any:
    from sharpstudent.models.weight_files import read_tensors

    return to_plain(read_tensors(path))


def read_beside(path: Path) -> Any:
    read_about(path.with_suffix(""))
    return to_plain(load_checkpoint(path.with_suffix("")).tensors)


def read_whole(path: Path) -> Any:
    from sharpstudent.models.weight_files import read_inert

    return to_plain(read_inert(path))


def read_evaluated(path: Path) -> Any:
    from sharpstudent.evaluation.model_files import read_tensor_file

    return to_plain(read_tensor_file(path).tensors)


def to_plain(value: Any) -> Any:
    """Tensors and arrays as lists, at any depth, so that `==` compares them; NaN equals NaN."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return [str(value.dtype), list(value.shape), repr(value.tolist())]
    if isinstance(value, dict):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    return value


def write_json(name: str, content: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_text(json.dumps(content))
        return path

    return make


def write_text(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_text(text)
        return path

    return make


# --- Configs and runs -----------------------------------------------------------------------------------------------

CONFIG = {"data_source": "labelled", "data_root": "data/labelled", "student": "test_efficientnet", "epoch": 2}


def read_config(path: Path) -> Any:
    from sharpstudent.config.load import read_config_file

    return read_config_file(path)


def make_private(folder: Path) -> Path:
    from sharpstudent.config.stored import PRIVATE_NAME

    return write_json(PRIVATE_NAME, {"paths": [{"key": ["a"], "shown": "x", "path": "/home/x"}]})(folder)


def read_private(path: Path) -> Any:
    from sharpstudent.config import stored

    content = {"a": "x"}
    stored._restore_private(path.parent, content)
    return content


def read_log(path: Path) -> Any:
    from sharpstudent.report.logs import LossesLog

    log = LossesLog(path)
    return [*log.repair(), *log.read()]


def read_metrics(path: Path) -> Any:
    from sharpstudent.report.logs import MetricsFile

    file = MetricsFile(path)
    return [file.repair(), file.read()]


def read_calibrations(path: Path) -> Any:
    from sharpstudent.train.preflight import temperature

    teacher = SimpleNamespace(calibration=None)
    found, temperature.find_calibrated = temperature.find_calibrated, lambda *_: {0: teacher}
    try:
        temperature.restore_calibrations(None, (), path.parent)  # type: ignore[arg-type]
    finally:
        temperature.find_calibrated = found
    return teacher.calibration


def make_table() -> dict[str, np.ndarray]:
    names = np.array([f"face {i}" for i in range(6)])
    logits = np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)
    return {"id": names, "group": names, "logits": logits, "label": np.arange(6) % 2}


def make_cached(folder: Path) -> Path:
    make_cache(folder).save(folder / "key.json", make_table())
    return folder / "key.json"


def make_cache(folder: Path) -> Any:
    from sharpstudent.train.preflight.table_cache import TableCache
    from tiny_runs import TinyTask

    return TableCache(folder, "x", torch.device("cpu"), TinyTask(None), lambda _: None)  # type: ignore[arg-type]


def read_cached(path: Path) -> Any:
    found = make_cache(path.parent).load(path)
    return None if found is None else to_plain(found)


def make_tables(folder: Path) -> Path:
    from sharpstudent.train.preflight.table_cache import save_tables

    save_tables(folder / "tables.json", [make_table()])
    return folder / "tables.json"


def read_tables(path: Path) -> Any:
    from sharpstudent.train.preflight.table_cache import load_tables

    try:
        return to_plain(load_tables(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # as documented; its caller goes on
        raise UserError.about(str(path), str(error)) from None


def make_skipped(folder: Path) -> Path:
    from sharpstudent.core.schedules import Progress
    from sharpstudent.train.debug.skipped import SkippedSteps

    batch = Batch({"image": torch.ones(2, 3, 4, 4)}, {"label": torch.tensor([0, 1])}, rows={"id": ["a", "b"]})
    result: Any = SimpleNamespace(reason="the loss is nan")
    steps = SkippedSteps(folder, 1)
    line = steps.keep(
        batch, Progress(1, 0, 1, 1), result, settings={"lr": 1.0, "rho": 0.0, "parts": 1}, capture_state=make_weights
    )
    assert "--replay" in line, line
    return next(steps.folder.glob("epoch_*.pth"))


def read_skipped(path: Path) -> Any:
    from sharpstudent.train.debug.skipped import load_skipped

    found = load_skipped(path)
    return to_plain([found.batch.inputs, found.batch.targets, dict(found.settings), dict(found.state)])


# --- Faces ----------------------------------------------------------------------------------------------------------


def make_picture(folder: Path) -> Path:
    cv2.imwrite(str(folder / "a.png"), draw_face(1, 40)[0])
    return folder / "a.png"


def read_a_picture(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.sources.face import find_copies, read_picture

    return to_plain([read_picture(path), [len(same) for same in find_copies([path, path])]])


def make_landmarks(folder: Path) -> Path:
    np.save(folder / "a.npy", draw_face(1, 40)[1][None])
    return folder / "a.npy"


def read_the_landmarks(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.sources.face import read_landmarks

    return to_plain(read_landmarks(path, np.zeros((40, 40, 3), np.uint8)))


def make_kept_crop(folder: Path) -> Path:
    image, points = draw_face(1, 40)
    np.savez(folder / "a.npz", image=image, landmarks=points.astype(np.float32), boxes=np.ones((1, 4), np.float32))
    return folder / "a.npz"


def read_kept_crop(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.sources.face_crops import CropFile

    crop = CropFile(path, Path("photo.jpg"))
    return to_plain([*vars(crop.load()).values(), crop.load_points()])


def make_photo_folder(folder: Path) -> Path:
    return make_picture(folder)


def read_photo_digest(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.sources.face_crops import FaceCrops

    FaceCrops(image_size=32, folder=path.parent / "crops")._file_of(path)
    return "a digest"


def make_manifest(folder: Path) -> Path:
    from made_rows import make_rows
    from sharpstudent.tasks.deepfake.dataset.manifest import write_manifest

    about = {"key": "a", "fingerprint": "f", "frames_read": 1, "frames_with_face": 1, "rejected": []}
    write_manifest(folder / "manifest.arrow", make_rows(12), about)
    return folder / "manifest.arrow"


def read_manifest(path: Path) -> Any:
    from made_rows import describe_row
    from sharpstudent.tasks.deepfake.sources.manifest import open_manifest

    found = open_manifest(path)
    return [found.about, *(repr(describe_row(row)) for row in found)]


def read_a_part(path: Path) -> Any:
    from made_rows import describe_row
    from sharpstudent.tasks.deepfake.prepare.parts import read_part

    return [repr(describe_row(row)) for row in read_part(path)[0]]


def read_crop(path: Path) -> Any:
    """A crop of a file of its own, by the size and checksum that a manifest has of it."""
    from sharpstudent.tasks.deepfake.dataset.shards import BrokenCrop, read_crop_bytes

    try:
        return read_crop_bytes(path, offset=0, size=5000, crc32=0xD0C58999)
    except BrokenCrop as error:
        raise UserError.about(str(path), str(error)) from None


def make_crop(folder: Path) -> Path:
    (folder / "a.png").write_bytes(bytes(range(250)) * 20)
    return folder / "a.png"


def make_shard(folder: Path) -> Path:
    from sharpstudent.tasks.deepfake.dataset.shards import write_shard

    write_shard(folder / "a.tar", [("clip/0_0.png", b"x" * 700), ("clip/1_0.png", b"y" * 700)])
    return folder / "a.tar"


def read_shard(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.dataset.shards import check_shard

    check_shard(path)
    with tarfile.open(path) as tar:
        return len(tar.getnames())


def make_swaps(folder: Path) -> Path:
    from sharpstudent.tasks.deepfake.swaps.folder import TABLE, SwapRow, write_table

    (folder / "real").mkdir()
    (folder / "real/a.png").write_bytes(b"x")
    write_table(folder, [SwapRow("real/a.png", "real", "", "", "ann", "", "a.png", "", 1)])
    return folder / TABLE


def read_the_swaps(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.evaluation.crops_set import read_swaps
    from sharpstudent.tasks.deepfake.swaps.folder import read_finished

    return repr([read_swaps(path.parent), read_finished(path.parent)])


def read_costs(path: Path) -> Any:
    from sharpstudent.evaluation import planned_runs

    return planned_runs.read_own(path, dict[str, dict[str, float]])


def read_swap_settings(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.swaps.folder import read_settings

    return read_settings(path.parent)


def read_the_preparation(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.prepare.destination import read_preparation

    return read_preparation(path.parent)


def read_the_finished(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.prepare.finished import read_finished

    return repr(read_finished(path.parent))


def read_list(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.layouts.ffpp import read_video_numbers
    from sharpstudent.tasks.deepfake.layouts.listing import peek

    return [peek(path), read_video_numbers(path)]


def read_labels(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.layouts.listing import read_json_object

    return read_json_object(path, form="an object")


def make_people(folder: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"x")
    return write_text("faces.csv", "path,person\na.jpg,ann\nb.jpg,bob\n")(folder)


def read_people(path: Path) -> Any:
    from sharpstudent.core.files import read_table
    from sharpstudent.tasks.deepfake.layouts.own_files import find_table
    from sharpstudent.tasks.deepfake.sources.photos import read_photos

    read_table(path, form="a table", remedy="mend it")
    with contextlib.suppress(UserError):  # it names photos that are not there
        find_table(path, 0)
    return repr(read_photos(path, remedy="mend it")[0])


def read_groups_of_people(path: Path) -> Any:
    from sharpstudent.core.files import read_column_table
    from sharpstudent.evaluation.compare import check_table
    from sharpstudent.task import Task

    request: Any = SimpleNamespace(by=("light",), by_table=path)
    task: Any = SimpleNamespace(unit="picture", group_unit="person")
    check_table(cast(type[Task], task), request)
    return read_column_table(path, ("light",), ("person",)).join({"person": ["ann"]})


def read_celebdf_list(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.layouts import celebdf
    from sharpstudent.tasks.deepfake.layouts.clip import ClipCollector

    return celebdf._read_test_list(path, ClipCollector(path.parent, "x"))


def make_sound(folder: Path) -> Path:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: the extra wakeword")
    soundfile.write(folder / "a.wav", np.sin(np.arange(4000)) / 2, 16000)
    return folder / "a.wav"


def read_sound(path: Path) -> Any:
    from sharpstudent.tasks.wakeword.recordings import read_recording

    return read_recording(path, 16000).tolist()


def make_recordings_list(folder: Path) -> Path:
    entries = [{"path": "a.wav", "category": "positive", "duration": 1.0, "sample_rate": 16000}]
    (folder / "train.json").write_text(json.dumps({"files": entries}))
    return folder / "train.json"


def read_recordings_list(path: Path) -> Any:
    from sharpstudent.tasks.wakeword.clip_layouts import _read_split

    return _read_split(path, path.parent)


def make_spoken_list(folder: Path) -> Path:
    (folder / "validation_list.txt").write_text("yes/1_nohash_0.wav\nno/2_nohash_0.wav\n")
    return folder / "validation_list.txt"


def read_spoken_list(path: Path) -> Any:
    from sharpstudent.tasks.wakeword.clip_layouts import _read_list

    return _read_list(path)


def make_mel(folder: Path) -> Path:
    np.save(folder / "a.npy", np.ones((64, 151), np.float32))
    return folder / "a.npy"


def read_mel(path: Path) -> Any:
    from sharpstudent.tasks.wakeword.clips import VoiceClip
    from sharpstudent.tasks.wakeword.section import WakewordSection
    from sharpstudent.tasks.wakeword.windows import Windows

    windows = Windows([], WakewordSection(), noise=(), rooms=(), is_training=False)
    clip = VoiceClip(path, "a", "positive", "a", 1.5, 16000, "train", features=path)
    return windows._load_features(clip).tolist()


def make_video(folder: Path) -> Path:
    from made_videos import write_counting_video

    return write_counting_video(folder / "a.avi", 5)


def read_video(path: Path) -> Any:
    from sharpstudent.modalities.faces.video import sample_video

    return sample_video(path, 3, lambda _, image: image.shape).frames


def make_detector(folder: Path) -> Path:
    path = folder / "detector.onnx"
    path.write_bytes((ROOT / "weights/face_detection_yunet_2023mar.onnx").read_bytes())
    from sharpstudent.core.io import compute_sha256

    entry = {"file": path.name, "sha256": compute_sha256(path)}
    (folder / "MANIFEST.json").write_text(json.dumps({"files": [entry]}))
    return path


def read_detector(path: Path) -> Any:
    from sharpstudent.tasks.deepfake.sources import face_crops

    before = face_crops.DETECTOR_FILE, face_crops.MESH_FILE
    face_crops.DETECTOR_FILE = face_crops.MESH_FILE = path
    try:
        face_crops.check_model_files()
    finally:
        face_crops.DETECTOR_FILE, face_crops.MESH_FILE = before
    return "whole"


def read_list_of_models(path: Path) -> Any:
    from sharpstudent.core.archive import verify

    return verify(path.with_name("detector.onnx"))


def make_onnx(folder: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper

    takes = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 4, 4])
    gives = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 48])
    graph = helper.make_graph([helper.make_node("Flatten", ["image"], ["logits"])], "g", [takes], [gives])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "a.onnx")
    return folder / "a.onnx"


def read_onnx(path: Path) -> Any:
    from sharpstudent.evaluation.onnx import count_weights, read_graph

    found = read_graph(path, device=torch.device("cpu"))
    return [found.input_name, found.output_name, found.side, count_weights(path)]


def make_sealed_onnx(folder: Path) -> Path:
    from sharpstudent.core.onnx_file import seal_onnx

    path = make_onnx(folder)
    path.write_bytes(seal_onnx(path.read_bytes()))
    return path


def read_onnx_text(path: Path) -> Any:
    from sharpstudent.core.onnx_file import read_onnx_metadata

    try:
        return read_onnx_metadata(path)
    except (OSError, ValueError):
        return None


def make_graph(folder: Path) -> Path:
    metadata = {"task": "deepfake", "architecture": "net"}
    value = json.dumps(metadata).replace('"', "&quot;")
    text = f'<net><rt_info><sharpstudent><metadata value="{value}" /></sharpstudent></rt_info></net>'
    return write_text("a.xml", text)(folder)


def make_program(folder: Path) -> Path:
    from sharpstudent.core.onnx_file import seal_program

    path = folder / "a.pte"
    path.write_bytes(seal_program(b"program" * 20, json.dumps({"task": "deepfake"}).encode()))
    return path


def read_program(path: Path) -> Any:
    from sharpstudent.core.archive import verify

    return [verify(path), read_task_of_model(path)]


def read_task_of_model(path: Path) -> Any:
    from sharpstudent.evaluation.command_line import _read_task

    return _read_task(str(path))[1]


def make_preflight(folder: Path) -> Path:
    return write_text("preflight.json", json.dumps({"rows": [{"name": "teacher", "auc": 0.9}]}))(folder)


def read_preflight(path: Path) -> Any:
    from sharpstudent.train.advice import read_models

    return to_plain(read_models(path))


def read_timm(path: Path) -> Any:
    from sharpstudent.models.weight_files import read_timm_config

    return read_timm_config(path.with_name("model.safetensors"))


VERIFIED = (
    "core/archive.py:_verify_pth", "core/archive.py:has_whole_records", "core/archive.py:_read_start",
    "core/archive.py:check_readable", "core/archive.py:_has_end",
    "core/archive.py:_claims_more", "core/archive.py:load_plain", "core/archive.py:_is_other_pickle",
    "core/archive.py:_list_packed", "core/archive.py:compute_contents",
    "core/io.py:compute_sha256",
)  # fmt: skip
TIMM = {"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [0.5, 0.5, 0.5]}}
FINISHED = {"key": "a", "counts": {"rows": 1}}

# --- Predictions ----------------------------------------------------------------------------------------------------


def make_arrays(folder: Path) -> Path:
    path = folder / "input.npy"
    np.save(path, np.arange(12.0, dtype=np.float32).reshape(3, 4))
    return path


def read_input_arrays(path: Path) -> Any:
    from sharpstudent.core.types import InputSource
    from sharpstudent.data.arrays import read_arrays

    example = Batch(inputs={"x": torch.zeros(1, 4)}, rows={"id": ("0",)})
    return to_plain(dict(read_arrays(InputSource("a", path), example).inputs))


def make_reference(folder: Path) -> Path:
    from sharpstudent.deploy.familiar import name_reference, store_reference

    opened: Any = SimpleNamespace(path=folder / "best_model.pth", sha256="0" * 64)
    rows = np.random.default_rng(0).normal(size=(60, 4))
    store_reference(opened, ("a",), rows, [str(row // 3) for row in range(60)], where="test")
    return name_reference(opened.path)


def read_stored_reference(path: Path) -> Any:
    from sharpstudent.deploy.familiar import read_reference

    found = read_reference(path)
    return to_plain([found.describe(), found.chosen, found.mean, found.scale, found.precision])


def make_journal(folder: Path) -> Path:
    from sharpstudent.core.types import Answer, InputSource
    from sharpstudent.report.predictions import PredictionFolder, build_prediction

    opened = PredictionFolder(folder, PREDICTED, print)
    for name in ("a", "b"):
        source = InputSource(name)
        opened.add(source, build_prediction(source, Answer("x", f"{name} is x."), seconds=1.0), None)
    opened.close([], notes=(), is_complete=True)
    return folder / "predictions.jsonl"


def read_journal(path: Path) -> Any:
    from sharpstudent.core.types import InputSource
    from sharpstudent.report.predictions import PredictionFolder

    folder = PredictionFolder(path.parent, PREDICTED, lambda _: None)
    found = [folder.find(InputSource(name)) for name in ("a", "b")]
    folder.close([], notes=(), is_complete=True)
    return [None if one is None else one.model_dump() for one in found]


def make_kept_tables(folder: Path) -> Path:
    from sharpstudent.deploy.kept_tables import KeptTables

    kept = KeptTables(folder / "a.read.jsonl", "a")
    for number in range(40):
        box = np.empty(1, object)
        box[:] = [(1.5, 2.0, number)]
        table = {"id": np.array(["a"]), "logits": np.full((1, 2), number, np.float32), "box": box}
        kept.add(table, is_settled=True)
    return folder / "a.read.jsonl"


def read_kept_tables(path: Path) -> Any:
    from sharpstudent.deploy.kept_tables import KeptTables

    return [to_plain(dict(table)) for table in KeptTables(path, "a").read()]


# --- Small pictures -------------------------------------------------------------------------------------------------


def make_digits(folder: Path) -> Path:
    path = folder / "digits.csv.gz"
    path.write_bytes(gzip.compress(b"\n".join(b",".join([b"7"] * 784 + [label]) for label in (b"3", b"4"))))
    return path


def read_the_digits(path: Path) -> Any:
    from sharpstudent.tasks.tokens.small_pictures import read_digits

    return read_digits(path).tolist()


def make_idx(folder: Path) -> Path:
    (folder / "t10k-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 4, 1, 2, 3, 4]))
    return folder / "t10k-labels-idx1-ubyte"


def read_the_idx(path: Path) -> Any:
    from sharpstudent.tasks.tokens.small_pictures import read_idx

    return read_idx(path, 1).tolist()


def read_a_small_picture(path: Path) -> Any:
    from sharpstudent.tasks.tokens.small_pictures import read_picture

    return read_picture(path).tolist()


# --- Pictures with heads ---


def make_gaze_table(folder: Path) -> Path:
    from gaze_trees import make_row

    path = folder / "train_annotations_release.txt"
    path.write_text("\n".join(make_row(f"{n}.jpg", n, 0.5, (0.5, 0.5), 1) for n in range(3)))
    return path


def make_gaze_json(folder: Path) -> Path:
    head = {"bbox": [10, 10, 30, 30], "gazex_norm": 0.5, "gazey_norm": 0.5, "inout": 1}
    path = folder / "train_preprocessed.json"
    path.write_text(json.dumps([{"path": "1.jpg", "width": 96, "height": 64, "heads": [head]}]))
    return path


def read_gaze_table(path: Path) -> Any:
    from sharpstudent.tasks.gaze.layouts import read_scenes

    return repr(read_scenes(path.parent, "gazefollow", "train", every=1, smooth=1))


def read_gaze_picture(path: Path) -> Any:
    from sharpstudent.tasks.gaze.scenes import read_picture

    return to_plain(read_picture(path))


def read_skeletons(path: Path) -> Any:
    section = SkeletonSection(
        data_source="npz", data_root=str(path), unit="m", skeleton="coco17", classes=made_motion.CLASSES
    )
    motion = load_motion(section, SKELETONS["coco17"])
    return [motion.read(number).tolist() for number in range(len(motion.labels))], motion.labels.tolist()


def read_skeleton_file(path: Path) -> Any:
    from sharpstudent.tasks.skeleton.ntu import read_skeleton_file
    from sharpstudent.tasks.skeleton.skeleton_inputs import open_frames

    frames, _ = open_frames(InputSource(path.name, path), SKELETONS["coco17"])
    streamed = [{body: xyz.tolist() for body, xyz in bodies.items()} for bodies, _ in frames]
    return read_skeleton_file(path).tolist(), streamed


def read_skeleton_array(path: Path) -> Any:
    from sharpstudent.tasks.skeleton.skeleton_inputs import open_frames

    frames, _ = open_frames(InputSource(path.name, path), SKELETONS["coco17"])
    return [{body: xyz.tolist() for body, xyz in bodies.items()} for bodies, _ in frames]


def read_prepared_skeletons(source: str, root: str) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        section = SkeletonSection(
            data_source=cast(Any, source), data_root=str(path.parent / root), unit="m", skeleton="coco17",
            classes=made_motion.CLASSES,
        )  # fmt: skip
        motion = load_motion(section, SKELETONS["coco17"])
        return [motion.read(number).tolist() for number in range(len(motion.labels))], motion.labels.tolist()

    return read


def make_mib(name: str) -> Callable[[Path], Path]:
    return lambda folder: made_motion.write_mib(folder) / name


READERS: dict[str, Reader] = {
    "table of digits": Reader(
        make_digits, read_the_digits, ("tasks/tokens/small_pictures.py:read_digits",), is_verified=True, flips=20
    ),
    "IDX file": Reader(make_idx, read_the_idx, ("tasks/tokens/small_pictures.py:_read_bytes",), flips=20),
    "small picture": Reader(
        make_picture, read_a_small_picture, ("tasks/tokens/small_pictures.py:_read_bytes",), flips=20
    ),
    "sequences of skeletons": Reader(
        lambda folder: made_motion.write_motion(folder / "motion.npz"),
        read_skeletons,
        ("tasks/skeleton/formats.py:_read_arrays", "tasks/skeleton/formats.py:_load_uiprmd"),
        flips=15,
    ),
    "skeleton file": Reader(
        made_motion.write_skeleton_file,
        read_skeleton_file,
        ("tasks/skeleton/ntu.py:read_skeleton_file", "tasks/skeleton/skeleton_inputs.py:_read_skeleton_frames"),
        flips=15,
    ),
    "skeleton array": Reader(
        made_motion.write_array, read_skeleton_array, ("tasks/skeleton/skeleton_inputs.py:_load",), flips=15
    ),
    "MIB positions": Reader(
        make_mib("train_joint.npy"), read_prepared_skeletons("mib", "."), ("tasks/skeleton/packages.py:_map_array",),
        flips=15,
    ),
    "MIB labels": Reader(
        make_mib("train_label.pkl"), read_prepared_skeletons("mib", "."),
        ("tasks/skeleton/packages.py:read_plain_pickle",), flips=15,
    ),
    "CTR-GCN sequences": Reader(
        made_motion.write_ctrgcn, read_prepared_skeletons("ctrgcn", "ctrgcn.npz"),
        ("tasks/skeleton/packages.py:load_ctrgcn",), flips=15,
    ),
    "skip list of skeletons": Reader(
        write_text("skip.txt", "S001C002P005R002A008\nS001C002P006R001A008\n"),
        lambda path: sorted(read_skip_list(path)),
        ("tasks/skeleton/ntu.py:read_skip_list",),
    ),
    "layout of joints": Reader(
        write_json("layout.json", made_motion.LAYOUT),
        lambda path: build_skeleton(str(path)).to_json(),
        ("tasks/skeleton/graph.py:_read_skeleton",),
    ),
    "arrays to predict from": Reader(make_arrays, read_input_arrays, ("data/arrays.py:read_arrays",)),
    "what is ordinary for a model": Reader(
        make_reference, read_stored_reference, ("deploy/familiar.py:read_reference",), is_verified=True
    ),
    "journal of predictions": Reader(
        make_journal, read_journal, ("report/predictions.py:PredictionFolder._read_journal",), flips=10
    ),
    "tables of an input that was not read to its end": Reader(
        make_kept_tables, read_kept_tables, ("deploy/kept_tables.py:KeptTables._read_lines",), flips=10
    ),
    "checkpoint, its digest beside it": Reader(make_checkpoint, read_weights, VERIFIED, is_verified=True),
    "report of a preflight": Reader(make_preflight, read_preflight, ("train/advice.py:read_models",)),
    "checkpoint, by the evaluation": Reader(
        make_checkpoint, read_evaluated, ("checkpoint/store.py:render_model",), is_verified=True
    ),
    "checkpoint, none of whose objects is built": Reader(
        make_checkpoint, read_whole, ("models/weight_files.py:read_inert",), is_verified=True
    ),
    "JSON beside a checkpoint": Reader(
        lambda folder: make_checkpoint(folder).with_name("best_model.pth.json"),
        read_beside,
        ("core/archive.py:read_record",),
        is_verified=True,  # whatever it says, no tensor changes
    ),
    "safetensors of this program": Reader(
        make_export,
        read_evaluated,
        (
            "core/archive.py:_verify_safetensors", "core/archive.py:_refuse_cut_off",
            "models/weight_files.py:read_safetensors", "models/weight_files.py:read_metadata",
            "checkpoint/store.py:export_model",
        ),
        is_verified=True,
    ),
    "index of safetensors": Reader(make_index, read_weights, ("models/weight_files.py:_read_shards",)),
    "config.json of a timm model": Reader(
        write_json("config.json", TIMM), read_timm, ("models/weight_files.py:read_timm_config",)
    ),
    "task of a model on the command line": Reader(
        make_export, read_task_of_model, ("evaluation/command_line.py:_read_metadata",)
    ),
    "task of an OpenVINO graph": Reader(make_graph, read_task_of_model, ("core/onnx_file.py:read_xml_metadata",)),
    "ExecuTorch program": Reader(
        make_program, read_program, ("core/onnx_file.py:read_program_metadata",), flips=20
    ),
    "ONNX": Reader(
        make_onnx,
        read_onnx,
        (
            "evaluation/runtimes.py:_OnnxRuntime.__init__", "evaluation/runtimes.py:_find_beside",
            "evaluation/onnx.py:count_weights", "evaluation/runtimes.py:_compute_digest",
            "evaluation/runtime_trial.py:is_small", "evaluation/runtime_trial.py:_load_onnx",
        ),
    ),
    "ONNX of this program": Reader(
        make_sealed_onnx, read_onnx, ("core/onnx_file.py:compare_seal",), flips=20
    ),
    "metadata of an ONNX file": Reader(
        make_sealed_onnx, read_onnx_text, ("core/onnx_file.py:read_onnx_metadata",), flips=20
    ),
    "face detector and mesh": Reader(
        make_detector,
        read_detector,
        (
            "core/archive.py:_verify_listed", "modalities/faces/detect.py:FaceDetector.__init__",
            "modalities/faces/landmarks.py:LandmarkMesh.__init__",
            "tasks/deepfake/prepare/crop_clip.py:load_networks", "tasks/deepfake/swaps/run.py:_describe",
        ),
        is_verified=True,
    ),
    "list of fetched files": Reader(
        lambda folder: make_detector(folder).with_name("MANIFEST.json"),
        read_list_of_models,
        ("core/archive.py:_find_listed_digest",),
    ),
    "config": Reader(write_json("config.json", CONFIG), read_config, ("config/load.py:_read_text",)),
    "private.json of a run": Reader(make_private, read_private, ("config/stored.py:_restore_private",)),
    "losses.logs": Reader(
        write_text("losses.logs", "Epoch 1/2 | a\n# note\n"),
        read_log,
        ("report/logs.py:LossesLog.read", "report/logs.py:LossesLog.repair"),
    ),
    "metrics.csv": Reader(
        write_text("metrics.csv", "epoch,a\n1,0.5\n2,0.25\n"), read_metrics, ("report/logs.py:MetricsFile._read_table",)
    ),
    "preflight.json": Reader(
        write_json("preflight.json", {"rows": [{}, {"calibration": 1.5}]}),
        read_calibrations,
        ("train/preflight/temperature.py:restore_calibrations",),
    ),
    "preflight cache": Reader(
        make_cached, read_cached, ("train/preflight/table_cache.py:TableCache.load",), is_verified=True
    ),
    "tables of a preflight": Reader(make_tables, read_tables, ("train/preflight/table_cache.py:load_tables",)),
    "skipped batch": Reader(
        make_skipped,
        read_skipped,
        (
            "train/debug/skipped.py:load_skipped", "train/debug/skipped.py:_is_whole",
            "train/debug/skipped.py:SkippedSteps.keep",
        ),
        is_verified=True,
    ),
    "table of gaze": Reader(make_gaze_table, read_gaze_table, ("tasks/gaze/layouts.py:_read_lines",), flips=10),
    "preprocessed gaze": Reader(make_gaze_json, read_gaze_table, ("tasks/gaze/layouts.py:_read_prepared",), flips=10),
    "picture with heads": Reader(make_picture, read_gaze_picture, ("tasks/gaze/scenes.py:read_picture",), flips=10),
    "picture": Reader(
        make_picture,
        read_a_picture,
        (
            "tasks/deepfake/sources/face.py:read_picture", "tasks/deepfake/sources/face.py:_check_pixels",
            "tasks/deepfake/sources/face.py:find_copies", "tasks/deepfake/sources/face.py:_decode_heif",
            "tasks/deepfake/evaluation/crops_set.py:_hash_content",
            "tasks/deepfake/prepare/crop_frame.py:_reuse_file", "tasks/deepfake/swaps/faces.py:FaceFinder._find_one",
        ),
    ),
    "photo whose face is kept": Reader(
        make_photo_folder, read_photo_digest, ("tasks/deepfake/sources/face_crops.py:FaceCrops._file_of",)
    ),
    "landmarks and boxes": Reader(
        make_landmarks,
        read_the_landmarks,
        ("tasks/deepfake/sources/face.py:read_array", "tasks/deepfake/sources/face.py:parse_array"),
    ),
    "kept crop": Reader(
        make_kept_crop, read_kept_crop, ("tasks/deepfake/sources/face_crops.py:CropFile._read",), is_verified=True
    ),
    "manifest": Reader(
        make_manifest,
        read_manifest,
        (
            "tasks/deepfake/dataset/manifest.py:Manifest._map", "tasks/deepfake/sources/manifest.py:open_manifest",
            "tasks/deepfake/prepare/finished.py:is_complete", "tasks/deepfake/prepare/packing.py:_open_if_packed",
        ),
        is_verified=True,
    ),
    "part of a preparation": Reader(
        make_manifest,
        read_a_part,
        ("tasks/deepfake/prepare/parts.py:read_part", "tasks/deepfake/prepare/destination.py:_name_clip"),
        is_verified=True,
    ),
    "crop of a manifest": Reader(
        make_crop,
        read_crop,
        ("tasks/deepfake/dataset/shards.py:read_crop_bytes", "tasks/deepfake/prepare/packing.py:_read"),
        is_verified=True,
    ),
    "shard": Reader(
        make_shard,
        read_shard,
        ("tasks/deepfake/dataset/shards.py:check_shard", "tasks/deepfake/dataset/shards.py:_find_refused"),
    ),
    "swaps.csv": Reader(
        make_swaps,
        read_the_swaps,
        (
            "tasks/deepfake/evaluation/crops_set.py:read_swaps", "tasks/deepfake/swaps/folder.py:read_finished",
        ),
    ),
    "settings of swaps": Reader(
        write_json("swaps.json", {"made_by": "make_swaps.py", "settings": {"a": 1}}),
        read_swap_settings,
        ("tasks/deepfake/swaps/folder.py:read_settings",),
    ),
    "costs of an ablation": Reader(
        write_json("costs.json", {"s1_alone": {"cpu_s": 1.5, "wall_s": 2.0}}),
        read_costs,
        ("evaluation/planned_runs.py:read_own",),
    ),
    "preparation.json": Reader(
        write_json("preparation.json", {"made_by": "prepare_faces.py", "settings": {"a": 1}}),
        read_the_preparation,
        ("tasks/deepfake/prepare/destination.py:read_preparation",),
    ),
    "record of a finished preparation": Reader(
        write_json(".finished.json", FINISHED), read_the_finished, ("tasks/deepfake/prepare/finished.py:read_finished",)
    ),
    "list of a data set": Reader(
        write_json("train.json", [["000", "003"], ["001", "002"]]),
        read_list,
        (
            "tasks/deepfake/layouts/listing.py:read_json", "tasks/deepfake/layouts/ffpp.py:read_video_numbers",
            "tasks/deepfake/layouts/listing.py:peek",
        ),
    ),
    "labels of a data set": Reader(
        write_json("metadata.json", {"a.mp4": {"label": "REAL", "split": "train"}}),
        read_labels,
        ("tasks/deepfake/layouts/listing.py:read_json_object",),
    ),
    "table of photos": Reader(
        make_people,
        read_people,
        (
            "tasks/deepfake/layouts/listing.py:read_csv", "core/files.py:read_table",
            "tasks/deepfake/layouts/own_files.py:find_table",
        ),
    ),
    "table of groups": Reader(
        write_text("people.csv", "person,light\nann,dark\nbob,bright\n"),
        read_groups_of_people,
        ("core/files.py:read_column_table", "evaluation/compare.py:check_table"),
    ),
    "test list of Celeb-DF": Reader(
        write_text("List_of_testing_videos.txt", "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n"),
        read_celebdf_list,
        ("tasks/deepfake/layouts/celebdf.py:_read_test_list",),
    ),
    "recording": Reader(make_sound, read_sound, ("tasks/wakeword/recordings.py:read_info",)),
    "list of recordings": Reader(
        make_recordings_list, read_recordings_list, ("tasks/wakeword/clip_layouts.py:_read_split",)
    ),
    "list of Speech Commands": Reader(
        make_spoken_list, read_spoken_list, ("tasks/wakeword/clip_layouts.py:_read_list",)
    ),
    "mel spectrogram": Reader(make_mel, read_mel, ("tasks/wakeword/windows.py:Windows._load_features",)),
    "video": Reader(
        make_video,
        read_video,
        (
            "modalities/faces/video.py:_check_file", "modalities/faces/video.py:OpenCvStream.__init__",
            "modalities/faces/video.py:PyAvStream.__init__", "modalities/faces/video.py:TorchcodecStream.__init__",
        ),
        flips=20,
    ),
}  # fmt: skip

NEEDS_NO_ROW: dict[str, str] = {
    "models/trained_start.py:describe_start": "the digest of a start whose weights have just been loaded",
    "checkpoint/store.py:load_run_state": "a file that was verified; tests/checkpoint/test_run_state.py",
    "tasks/wakeword/device_header.py:write_header": "the file that this export has written and compared",
    "tasks/wakeword/speech_embedding.py:_open_session": "a digest, and a file that has it",
    "tasks/gaze/feature_cache.py:_read": "features that are computed anew where the digest in the file does not fit",
    "evaluation/planned_runs.py:Planner.train": "the log of a run that has just failed, for the message",
    "tasks/tokens/demo.py:Experiment.find_run": "the log of its own run, whose lines are counted",
    "tasks/tokens/demo.py:Experiment.train": "the config of its own run, compared as text",
    "tasks/tokens/__main__.py:_load": "a config, as every script reads it",
    "tasks/skeleton/from_pose.py:PoseModel.__init__": "a program that the user names; tests/tasks/skeleton",
    "tasks/skeleton/renderer.py:SkeletonRenderer.find_mistakes": "opens the samples of a set, no file",
    "deploy/app.py:App._predict": "its own answer, written before",
    "deploy/app.py:App._show_answer": "its own answer, written before",
    "tasks/deepfake/task.py:DeepfakeTask.make_example_input": "a file of the package",
    "deploy/predict.py:explain_unreadable": "the first 512 bytes, of a file that could not be read, for the message",
    "tasks/deepfake/annotate.py:_write": "a video that has been read; a fault is a line for the user",
    **dict.fromkeys(
        ("core/files.py:open_plain", "core/files.py:check_plain", "core/files.py:read_plain", "core/files.py:read_text",
         "core/files.py:read_json"),
        "what the rows read through; tests/core/test_files.py",
    ),
    **dict.fromkeys(("core/io.py:_open", "core/io.py:sync_to_disk"), "a lock, or a file that was just written"),
    "core/errors.py:_drop_output": "the null device",
    **dict.fromkeys(
        ("core/shipped.py:_read", "core/shipped.py:find_shipped"),
        "files of the package; tests/core/test_shipped.py damages them",
    ),
    "core/fetch.py:fetch_package_members": "a digest of a file that is fetched again where it differs",
    "core/fetch.py:_read_members": "an archive that pip fetched; each member is compared with its sha256",
    "evaluation/cost_child.py:_read_bytes": "/proc, of this very process",
    **dict.fromkeys(
        ("core/memory.py:_read_group", "core/memory.py:_read_machine", "core/memory.py:_read_quota"),
        "/proc and /sys of this machine",
    ),
    "evaluation/runtime_trial.py:_limit_memory": "/proc, of this very process",
    "core/storage.py:verify_fetched": "a digest of a file that was fetched; tests/core/test_storage.py",
    **dict.fromkeys(
        ("tasks/deepfake/prepare/finished.py:CarryingWorker.__call__", "tasks/deepfake/prepare/remote.py:_read_parts",
         "tasks/deepfake/prepare/remote.py:StoredSet.publish"),
        "what this preparation has just written",
    ),
    "tasks/deepfake/prepare/remote.py:StoredSet._read_journal": "JSON through read_json; without it all is uploaded",
    "tasks/deepfake/prepare/remote.py:StoredSet._unpack_parts": "an archive with its digest, whose members have rows",
    "tasks/deepfake/prepare/destination.py:has_columns": "a file that is written anew where it has other bytes",
    "report/environment.py:_read_cpu_model": "/proc",
    "registry.py:_read_builtin": "pyproject.toml of this very checkout",
    "core/arguments.py:_list_packages": "pyproject.toml of this very checkout",
    "api.py:FinishedStage._repr_html_": "a picture that the run has just written",
    "models/pretrained.py:_explain_no_imagenet": "MANIFEST.json of the package",
    "api.py:push_to_hub": "a card is text; the rest is read by `_read_results`",
    "api.py:_read_results": "tests/test_hub.py damages it",
    "commands.py:_list_configs": "configs of the package",
    "train/callbacks.py:CsvSteps.on_start": "a log that it wrote itself",
    "tasks/gaze/gaze_renderer.py:_draw_head": "`open` of a data set of an evaluation, whose files have rows",
    "tasks/wakeword/renderer.py:WakewordRenderer.find_mistakes": "`open` of a data set of an evaluation",
    "tasks/gaze/portraits.py:_read_table": "a table of text through read_text; another form is refused",
    **dict.fromkeys(
        ("tasks/wakeword/kept_answers.py:KeptAnswers._read", "tasks/wakeword/kept_answers.py:_read_whole"),
        "a file whose name is its digest; tests/tasks/wakeword/test_wakeword_report.py damages it",
    ),
    "tasks/wakeword/wav2vec2.py:_honour_extractor": "JSON through read_json",
    "models/pretrained.py:main": "MANIFEST.json of the package",
    "models/weight_files.py:main": "through read_inert, and a digest",
    "evaluation/load_model.py:_open_tensors": "a digest of a file that was verified",
    **dict.fromkeys(
        ("evaluation/opened.py:open_checkpoint", "evaluation/opened.py:_open_tensors"),
        "a digest of a file that was verified",
    ),
    **dict.fromkeys(
        ("deploy/convert.py:write_openvino", "deploy/quantize.py:Quantizer.__init__",
         "deploy/quantize.py:Quantizer.quantize", "deploy/quantize.py:Quantizer.rank",
         "deploy/quantize.py:_run_all"),
        "what this process has written to a temporary folder itself",
    ),
    "deploy/export.py:_find_config": "a config, whose reader has a row",
    **dict.fromkeys(
        ("evaluation/runtimes.py:_OpenVino.__init__", "evaluation/runtimes.py:_list_beside"),
        "OpenVINO is no dependency of the tests; tests/deploy/test_other_runtimes.py damages its files where it is",
    ),
    "modalities/faces/corruptions.py:_decode": "pictures that the program encoded itself, in memory",
    "tasks/deepfake/prepare/pool.py:_silence_decoders": "the null device",
    **dict.fromkeys(
        ("evaluation/evaluate.py:evaluate_models", "tasks/deepfake/evaluation/mistakes.py:_load",
         "tasks/deepfake/evaluation/run_validation.py:ValidationSet.describe",
         "tasks/deepfake/evaluation/run_validation.py:open_validation"),
        "`open` of a data set of an evaluation, whose files have rows",
    ),
    **dict.fromkeys(
        ("evaluation/tables.py:find_config", "evaluation/tables.py:read_run_config"), "through the reader of configs"
    ),
}  # fmt: skip
