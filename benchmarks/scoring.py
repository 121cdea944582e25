"""Measure what ways of scoring gain and cost: rules for frames, views of a face, calibration on own material.

    python benchmarks/scoring.py MODEL... --photos PHOTOS [--people N] [--frames N] [--crf X...] [--json FILE]

PHOTOS is what make_swaps.py takes: real photos of people whom no MODEL was trained with. Each photo gives two clips, of
itself and of a swap on it: the same small path of a camera (zoom, pan, turn, jitter), sensor noise, and H.264 with its
real groups of pictures. A clip is one row and a person is one group: frames of one photo are not independent. "photo"
is the picture itself, without film. A face's box comes from its photo, moved along the path, with the scatter of a
detector. Differences are paired, by the library's bootstrap over people: 95 % intervals.

Two people: beside each person stands a real one, and the rules for several faces have to find out who is fake.

Calibration: half of the people choose temperature and thresholds, as `evaluate_model.py --validation OWN --fpr 0.05
--store` does, and the other half shows what they and the stored ones are worth. Cost is processor time over that of the
plain score: of cropping and network alone, and with the search for faces, which views do not repeat. After Ctrl-C the
figures are those of the people so far.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sharpstudent.core.arguments import Parser, read_number, read_path
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Table
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.data.loader import pictures_to_tensor
from sharpstudent.evaluation.command_line import ModelRequest, split_model
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.evaluation.renderer import load_renderer
from sharpstudent.metrics.binary import to_logits
from sharpstudent.metrics.bootstrap import compute_interval, compute_paired
from sharpstudent.metrics.calibration import compute_ece
from sharpstudent.metrics.intervals import Estimate
from sharpstudent.metrics.metric import Counts, Metric, make_binary_metric, make_mean_metric, repeat_rows
from sharpstudent.modalities.faces.blend_other import blend_other
from sharpstudent.modalities.faces.corruptions import DECODER, ENCODER, OPTIONS, PIXELS, explain_no_h264
from sharpstudent.modalities.faces.swap.swap import PointedFace, SwapDraft, finish_swap
from sharpstudent.modalities.faces.views import CROPS, FLIP, list_views, make_views
from sharpstudent.tasks.deepfake.answer import read_thresholds
from sharpstudent.tasks.deepfake.evaluation.calibration import KEY, calibrate_on_validation
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import find_input
from sharpstudent.tasks.deepfake.evaluation.frames import Aggregation, ScoredFrames, aggregate
from sharpstudent.tasks.deepfake.prepare.crop_clip import VERSION, load_networks
from sharpstudent.tasks.deepfake.prepare.crop_frame import FrameCropper, Picture
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings
from sharpstudent.tasks.deepfake.report.results import Thresholds
from sharpstudent.tasks.deepfake.swaps.faces import FaceFinder, PartnerChoice
from sharpstudent.tasks.deepfake.swaps.people import AFFINE, BLENDINGS, SwapRequest, list_photos
from sharpstudent.tasks.deepfake.task import DeepfakeTask

Pixels = NDArray[np.uint8]
EVERY = f"{FLIP}+{CROPS}"
VIEWS = {"plain": [0], FLIP: [0, 1], CROPS: [0, 2, 4], EVERY: [0, 1, 2, 3, 4, 5]}  # places in list_views(EVERY)
RULES = ("mean", "mean_margin", "top10", "top5frames", "max")
ZOOM, PAN, TURN = 0.08, 0.04, 2.0  # of a path, at most: share, share of the face's side, degrees
JITTER, NOISE, BOX = 0.004, 2.0, 0.01  # scatter: of the camera [face's side], of a pixel [of 255], of a box [its side]
PHOTO = "photo"
FOUND_SIDE, CHUNK, TIMED_CLIPS, TURNS = 380, 24, 4, 5

AUC = make_binary_metric("auc_by_rank", lambda table: table["margin"])


def compute_losses(table: Table) -> NDArray[np.float64]:
    return np.logaddexp(0.0, np.where(table["label"] == 1, -table["margin"], table["margin"]))


def compute_drawn_ece(table: Table, counts: Counts) -> float:
    drawn = repeat_rows(table, counts)
    return compute_ece(to_logits(drawn["margin"]), drawn["label"])


def find_called(label: int, table: Table) -> NDArray[np.float64]:
    return np.where(table["label"] == label, table["called"].astype(np.float64), np.nan)


CALIBRATION: dict[str, Metric] = {
    "log loss": make_mean_metric(compute_losses, "lower"),
    "ECE": Metric(compute_drawn_ece, "lower", bounds=(0.0, 1.0), falls_with_share=False, strata="label"),
    "false alarms": make_mean_metric(partial(find_called, 0), "lower"),
    "found": make_mean_metric(partial(find_called, 1)),
}


@dataclass(frozen=True)
class Scene:
    """A real photo and the swap on it, uint8 (H, W, 3) each, with the box of the face (4,)."""

    person: str
    pictures: tuple[Pixels, Pixels]
    box: NDArray[np.float64]


def list_scenes(photos: Path, people: int, blending: str, seed: int) -> Iterator[Scene]:
    """Make a swap on a photo of each person, of at most so many people."""
    request = SwapRequest(photos, Path("unused"), seed=seed)
    finder = FaceFinder()
    first = {photo.person: photo for photo in reversed(list_photos(request, lambda _, __: None, print))}
    faces = finder.find([first[name] for name in sorted(first)], print)
    choice, made = PartnerChoice(faces, FOUND_SIDE, seed), 0
    for index in build_generator(seed, 0, 0, "order").permutation(len(faces)).tolist():
        try:
            ((source, draft),) = choice.choose(index, 1)
            crop = choice.crop(index)
            fake = _blend(draft, crop.face, choice.crop_source(source).face, blending, build_generator(seed, 5, index))
        except (UnreadableSample, ValueError):
            continue
        left, top, right, bottom = crop.final_xyxy
        inward = np.array([right - left, bottom - top] * 2) * (0.125 / 1.25) * np.array([1, 1, -1, -1])
        yield Scene(faces[index].photo.person, (crop.face.image, fake), np.array(crop.final_xyxy) + inward)
        made += 1
        if made == people:
            return


def _blend(draft: SwapDraft, face: PointedFace, other: PointedFace, blending: str, rng: np.random.Generator) -> Pixels:
    if blending == AFFINE:
        return blend_other(face.image, face.landmarks, other.image, other.landmarks, rng)[1]
    return finish_swap(draft, blending).image


def draw_path(box: NDArray[np.float64], count: int, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Draw a camera's path: an affine map (2, 3) for each frame, smooth, with jitter."""
    middle, side = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).mean())
    zooms, pans, turns = rng.uniform(-ZOOM, ZOOM, 2), rng.uniform(-PAN, PAN, (2, 2)), rng.uniform(-TURN, TURN, 2)
    path: list[NDArray[np.float64]] = []
    for t in np.linspace(0.0, 1.0, count).tolist():
        zoom, turn = (float((1 - t) * ends[0] + t * ends[1]) for ends in (zooms, turns))
        move = side * ((1 - t) * pans[0] + t * pans[1] + rng.normal(0.0, JITTER, 2))
        matrix = np.asarray(cv2.getRotationMatrix2D(tuple(middle.tolist()), turn, 1.0 + zoom), np.float64)
        matrix[:, 2] += move
        path.append(matrix)
    return path


def film(picture: Pixels, path: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> list[Pixels]:
    """Film a picture along a path, with sensor noise; the sides are even, as the codec needs them."""
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    frames: list[Pixels] = []
    for matrix in path:
        moved = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        noisy = moved.astype(np.float32) + rng.normal(0.0, NOISE, moved.shape).astype(np.float32)
        frames.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    return frames


def compress(frames: Sequence[Pixels], crf: float) -> list[Pixels]:
    """Compress a film with H.264 and decode it again."""
    import av  # pyright: ignore[reportMissingImports]

    encoder = av.CodecContext.create(ENCODER, "w")
    encoder.height, encoder.width = frames[0].shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.thread_count = PIXELS, Fraction(1, 25), 1
    encoder.options = {**OPTIONS, "crf": f"{crf:g}"}
    packets: list[bytes] = []
    for number, frame in enumerate(frames):
        shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format=PIXELS)
        shown.pts = number
        packets += map(bytes, encoder.encode(shown))
    packets += map(bytes, encoder.encode(None))
    decoder = av.CodecContext.create(DECODER, "r")
    decoder.thread_count = 1
    decoded = [frame for packet in packets for frame in decoder.decode(av.Packet(packet))] + decoder.decode(None)
    return [np.array(frame.to_ndarray(format="rgb24"), np.uint8) for frame in decoded]


def move_box(box: NDArray[np.float64], matrix: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Move a face's box along with the camera, and scatter it as a detector's."""
    corners = np.array([[box[x], box[y]] for x in (0, 2) for y in (1, 3)])
    moved = corners @ matrix[:, :2].T + matrix[:, 2]
    tight = np.concatenate([moved.min(0), moved.max(0)])
    return (tight + rng.normal(0.0, BOX * (tight[2] - tight[0]), 4)).astype(np.float32)


Shots = list[tuple[Pixels, NDArray[np.float32]]]  # frames, each with the box of its face


def list_clips(scene: Scene, count: int, crfs: Sequence[float], seed: int) -> Iterator[tuple[str, int, Shots]]:
    """Make the clips of a person: condition, label, shots. Real and fake have the same path, noise and boxes."""
    number = int.from_bytes(scene.person.encode("utf-8", "surrogatepass")[-6:], "big")
    path = draw_path(scene.box, count, build_generator(seed, 1, number))
    for label, picture in enumerate(scene.pictures):
        yield PHOTO, label, [(picture, scene.box.astype(np.float32))]
        frames = film(picture, path, build_generator(seed, 2, number))
        for crf in crfs:
            rng = build_generator(seed, 3, number)
            boxes = [move_box(scene.box, matrix, rng) for matrix in path]
            yield f"H.264 CRF {crf:g}", label, list(zip(compress(frames, crf), boxes, strict=True))


@torch.inference_mode()
def compute_margins(opened: OpenedModel, pictures: Pixels) -> NDArray[np.float64]:
    """Compute the log-odds of fake of pictures (n, S, S, 3)."""
    parts = pictures_to_tensor(torch.from_numpy(pictures)).split(CHUNK)
    logits = torch.cat([opened.model(image=part)["logits"] for part in parts]).double().numpy()
    return logits[:, 1] - logits[:, 0]


def cut_views(opened: OpenedModel, shots: Shots, name: str | None) -> Pixels:
    """Cut the views (n, V, S, S, 3) of the faces of n shots."""
    side, views = find_input(opened.input_key).image_size, list_views(name)
    return np.stack([make_views(image, box, side, views) for image, box in shots])


class Scores:
    """The margins of one model: by condition and clip, of each frame and view."""

    def __init__(self, opened: OpenedModel) -> None:
        self.opened = opened
        self.margins: dict[str, dict[tuple[str, int], NDArray[np.float64]]] = {}

    def score(self, shots: Shots) -> NDArray[np.float64]:
        """Compute the margins of each frame and view of a clip."""
        cut = cut_views(self.opened, shots, EVERY)
        return compute_margins(self.opened, cut.reshape(-1, *cut.shape[2:])).reshape(cut.shape[:2])

    def make_table(self, condition: str, view: str, rule: str) -> Table:
        """Make a row for each clip; rule: how frames make one score, or `one frame`."""
        of_clips = self.margins[condition]
        scored = [margins[:, VIEWS[view]].mean(1) for margins in of_clips.values()]
        if rule == "one frame":
            scores = np.array([frames[len(frames) // 2] for frames in scored])
        else:
            clip_of = np.repeat(np.arange(len(scored)), [len(frames) for frames in scored])
            scores = aggregate(np.concatenate(scored), clip_of, Aggregation(rule))
        return _build_table(list(of_clips), scores)


def _build_table(names: Sequence[tuple[str, int]], margins: NDArray[np.float64], **more: NDArray[Any]) -> Table:
    people, labels = [person for person, _ in names], np.array([label for _, label in names])
    ids = np.array([f"{person}/{label}" for person, label in names])
    return {"id": ids, "group": np.array(people), "label": labels, "margin": margins, **more}


def measure_rules(scores: Scores, condition: str, rounds: int) -> list[dict[str, Any]]:
    """Compare ways of scoring with the plain one: the mean of frames, or of a photo the photo."""
    rules = [("plain", rule) for rule in ("one frame", *RULES)] + [(view, "mean") for view in VIEWS if view != "plain"]
    if condition == PHOTO:
        rules = [(view, "mean") for view in VIEWS]
    base, rows = scores.make_table(condition, "plain", "mean"), list[dict[str, Any]]()
    for view, rule in rules:
        table = scores.make_table(condition, view, rule)
        auc = compute_interval(AUC, table, rounds=rounds)
        gain = None if (view, rule) == ("plain", "mean") else compute_paired(AUC, table, base, rounds=rounds)
        rows.append({"rule": rule, "views": view, "auc": to_list(auc), "gain": gain and to_list(gain)})
        print(
            f"  {rule:12} {view:11} AUC {tell(auc)}" + (f"   gain {tell(gain, sign='+')}" if gain else ""), flush=True
        )
    return rows


def measure_people(scores: Scores, condition: str, rounds: int) -> list[dict[str, Any]]:
    """Compare the rules for several people, where a real one stands beside each: the person who comes next."""
    of_clips = scores.margins[condition]
    people = list(dict.fromkeys(person for person, _ in of_clips))
    beside = dict(zip(people, people[1:] + people[:1], strict=True))
    faces = [np.stack([of_clips[name][:, 0], of_clips[beside[name[0]], 0][:, 0]], 1) for name in of_clips]

    def average(margins: NDArray[np.float64]) -> float:
        flat = margins.ravel()
        return float(aggregate(flat, np.zeros(len(flat), np.int64), Aggregation("mean"))[0])

    rules: dict[str, Callable[[NDArray[np.float64]], float]] = {
        "largest, the right one": lambda of_clip: average(of_clip[:, 0]),
        "max of a frame": lambda of_clip: average(of_clip.max(1)),
        "mean of a frame": average,
        "people followed": lambda of_clip: max(average(of_person) for of_person in of_clip.T),
    }
    tables = {name: _build_table(list(of_clips), np.array([*map(rule, faces)])) for name, rule in rules.items()}
    rows = list[dict[str, Any]]()
    for name, table in tables.items():
        auc = compute_interval(AUC, table, rounds=rounds)
        gain = compute_paired(AUC, table, tables["max of a frame"], rounds=rounds)
        rows.append({"rule": name, "auc": to_list(auc), "over_max": to_list(gain)})
        print(f"  two people: {name:22} AUC {tell(auc)}   over max {tell(gain, sign='+')}", flush=True)
    return rows


def measure_calibration(scores: Scores, condition: str, rounds: int, seed: int) -> dict[str, Any]:
    """Compare the stored temperature and thresholds with those that half of the people choose, on the other half."""
    of_clips = scores.margins[condition]
    people = sorted({person for person, _ in of_clips})
    own = {people[place] for place in build_generator(seed, 4, 0).permutation(len(people))[: len(people) // 2].tolist()}
    chosen = calibrate_on_validation(_build_frames(of_clips, own), where="own", fprs=(0.05, 0.01))
    others = [name for name in of_clips if name[0] not in own]
    margins = np.array([
        aggregate(of_clips[name][:, 0], np.zeros(len(of_clips[name]), np.int64), Aggregation("mean"))[0]
        for name in others
    ])  # fmt: skip
    is_video, tables, found = condition != PHOTO, dict[str, Table](), dict[str, Any]()
    for state, about in (("before", scores.opened.about), ("after", {KEY: chosen.model_dump(mode="json")})):
        thresholds = read_thresholds(about, is_video=is_video)
        if thresholds is None:
            print(f"  calibration: nothing is stored with {scores.opened.name}")
            return {}
        tables[state] = _build_table(others, margins / thresholds.temperature, called=margins >= thresholds.high)
        found[state] = _describe_state(thresholds, tables[state], rounds)
        told = ", ".join(f"{name} {tell_list(found[state][name])}" for name in CALIBRATION)
        print(
            f"  calibration {state:6} T {thresholds.temperature:.2f}, chosen for {thresholds.false_alarms:.1%}: {told}"
        )
    changes = {
        name: compute_paired(m, tables["after"], tables["before"], rounds=rounds) for name, m in CALIBRATION.items()
    }
    print("  calibration change " + ", ".join(f"{name} {tell(one, sign='+')}" for name, one in changes.items()))
    return {
        **found,
        "change": {name: to_list(one) for name, one in changes.items()},
        "tested_people": len(people) - len(own),
    }


def _describe_state(thresholds: Thresholds, table: Table, rounds: int) -> dict[str, Any]:
    values = {name: to_list(compute_interval(metric, table, rounds=rounds)) for name, metric in CALIBRATION.items()}
    return {"temperature": thresholds.temperature, "promised": thresholds.false_alarms, **values}


def _build_frames(of_clips: Mapping[tuple[str, int], NDArray[np.float64]], people: set[str]) -> ScoredFrames:
    """Make the frames of some people, as an evaluation has them."""
    rows = [
        (margin, label, f"{person}/{label}/{number}", f"{person}/{label}", person)
        for (person, label), margins in of_clips.items()
        if person in people
        for number, margin in enumerate(margins[:, 0].tolist())
    ]
    margins, labels, ids, clips, groups = zip(*rows, strict=True)
    kinds = ["swap" if label else "" for label in labels]
    return ScoredFrames(np.array(margins), np.array(labels), ids, clips, groups, ["own"] * len(rows), kinds)


def measure_costs(opened: OpenedModel, clips: Sequence[Shots]) -> dict[str, dict[str, float]]:
    """Measure processor time of each kind of views over that of the plain crop, in turns; medians."""
    cropper = FrameCropper(CropSettings(faces="all", image_size=FOUND_SIDE), load_networks, version=VERSION)
    shots = [shot for clip in clips for shot in clip]
    searching: list[float] = []
    taken: dict[str, list[float]] = {view: [] for view in VIEWS}
    for _ in range(TURNS):
        searching.append(_time(lambda: [cropper.find(Picture(image, "", 0), None) for image, _ in shots]))
        for view, times in taken.items():
            name = None if view == "plain" else view
            times.append(_time(lambda name=name: _score(opened, shots, name)))
    plain, search = np.array(taken["plain"]), float(np.median(searching))
    return {
        view: {
            "cropping and network": float(np.median(np.array(times) / plain)),
            "with the search for faces": float(np.median((np.array(times) + search) / (plain + search))),
            "ms a face": 1000 * float(np.median(times)) / len(shots),
        }
        for view, times in taken.items()
    }


def _score(opened: OpenedModel, shots: Shots, name: str | None) -> None:
    cut = cut_views(opened, shots, name)
    compute_margins(opened, cut.reshape(-1, *cut.shape[2:]))


def _time(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def to_list(found: Estimate) -> list[float | None]:
    return [found.value, found.low, found.high]


def tell(found: Estimate, sign: str = "") -> str:
    return tell_list(to_list(found), sign)


def tell_list(values: Sequence[float | None], sign: str = "") -> str:
    value, low, high = (f"{one:{sign}.3f}" if one is not None else "-" for one in values)
    return f"{value} [{low}, {high}]"


def main() -> None:
    """Measure and print; with --json also write the figures."""
    parser = Parser(
        "benchmarks/scoring.py", str(__doc__), examples=["benchmarks/scoring.py output/RUN --photos people.csv"]
    )
    add = parser.add_argument
    add("models", metavar="MODEL", nargs="+", help="run folders, checkpoints, names of shipped models; NAME=MODEL")
    add("--photos", metavar="PHOTOS", type=read_path, required=True, help="real photos by person: a folder or a CSV")
    add("--people", metavar="N", type=read_number(int, 4, 10_000), default=200, help="people at most (%(default)s)")
    add("--frames", metavar="N", type=read_number(int, 2, 1000), default=16, help="frames of a clip (%(default)s)")
    add("--crf", metavar="X", type=read_number(float, 0, 51), nargs="+", default=[23, 35], help="of H.264 (23 35)")
    add("--blending", choices=BLENDINGS, default=BLENDINGS[0], help="of the swaps (%(default)s)")
    add(
        "--rounds", metavar="N", type=read_number(int, 10, 100_000), default=2000, help="of the bootstrap (%(default)s)"
    )
    add(
        "--seed", metavar="N", type=read_number(int, 0, 2**32 - 1), default=0, help="of all that is drawn (%(default)s)"
    )
    add("--json", metavar="FILE", type=read_path, help="also write the figures as JSON")
    read = parser.read(sys.argv[1:])
    if (obstacle := explain_no_h264()) is not None:
        raise UserError.about("benchmarks/scoring.py", obstacle)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    renderer, cpu = load_renderer(DeepfakeTask), torch.device("cpu")
    named = [ModelRequest(path, name) for name, path in map(split_model, read.models)]
    models = [Scores(renderer.open_model(request, cpu)) for request in named]
    people, timed = 0, list[Shots]()
    try:
        for scene in list_scenes(read.photos, read.people, read.blending, read.seed):
            clips = list(list_clips(scene, read.frames, read.crf, read.seed))
            scored = [[scores.score(shots) for _, _, shots in clips] for scores in models]
            for scores, of_clips in zip(models, scored, strict=True):
                for (condition, label, _), margins in zip(clips, of_clips, strict=True):
                    scores.margins.setdefault(condition, {})[scene.person, label] = margins
            timed += [shots for _, label, shots in clips if len(shots) > 1 and label == 0 and len(timed) < TIMED_CLIPS]
            people += 1
            if people % 10 == 0:
                print(f"{people} people, {time.process_time():.0f} s", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(f"stopped; what follows is of the {people} people so far", file=sys.stderr)
    found: dict[str, Any] = {"people": people, "frames": read.frames, "blending": read.blending, "models": {}}
    for scores in models:
        of_model: dict[str, Any] = {"costs": measure_costs(scores.opened, timed)}
        for condition in scores.margins:
            print(f"{scores.opened.name}, {condition}: {people} people, a real and a fake of each", flush=True)
            rules = measure_rules(scores, condition, read.rounds)
            calibration = measure_calibration(scores, condition, read.rounds, read.seed)
            beside = [] if condition == PHOTO else measure_people(scores, condition, read.rounds)
            of_model[condition] = {"rules": rules, "calibration": calibration, "two people": beside}
        for view, cost in of_model["costs"].items():
            print(f"  cost of {view:11} " + ", ".join(f"{name} {value:.2f}" for name, value in cost.items()))
        found["models"][scores.opened.name] = of_model
    if read.json is not None:
        write_text_atomically(read.json, json.dumps(found, indent=1))


if __name__ == "__main__":
    with exit_codes():
        main()
