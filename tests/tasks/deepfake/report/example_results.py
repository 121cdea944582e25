"""A rich, plausible `Results` with its pictures, for tests of everything that is rendered from results.

Scores are random; metrics, curves and comparisons are computed from them as in an evaluation, so that they agree.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

HELPERS = Path(__file__).resolve().parents[3] / "helpers"
if str(HELPERS) not in sys.path:
    sys.path.insert(0, str(HELPERS))

from drawn_faces import draw_face
from sharpstudent.report.results import CostResult, MetricValue, Role, TrainingResult
from sharpstudent.tasks.deepfake.evaluation.calibration import choose_operating_points
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
from sharpstudent.tasks.deepfake.report.from_frames import build_comparisons, build_drawings, build_metrics
from sharpstudent.tasks.deepfake.report.pictures import ReportPicture
from sharpstudent.tasks.deepfake.report.results import (
    Band,
    CalibrationResult,
    CorruptionCurve,
    CorruptionPoint,
    DataResult,
    MistakeResult,
    ModelResult,
    OperatingPointResult,
    Results,
)
from sharpstudent.tasks.deepfake.report.tiles import build_tiles, list_limits
from sharpstudent.tasks.deepfake.report.verdict import write_headed_verdict

MODELS: tuple[tuple[str, Role, float, float], ...] = (  # name, role, separation of kinds of the first source, of others
    ("teacher, tf_efficientnet_lite2", "teacher", 2.9, 1.9),
    ("student, hard labels", "before", 1.6, 0.9),
    ("student + distillation", "distilled", 2.6, 1.4),
)
KINDS = {"demo_faces": ("", "self_blended"), "swaps": ("", "face_swap", "expression")}
CORRUPTIONS = (
    ("jpeg", "quality", (100, 90, 70, 50, 30), "quality {:g}", 0.05),
    ("h264", "CRF", (0, 23, 28, 35, 40), "CRF {:g}", 0.07),
    ("resize", "% of the side kept", (100, 75, 50, 25), "to {:g} % and back", 0.09),
    ("blur", "sigma, % of the side", (0, 0.5, 1, 1.5, 2), "sigma {:g} % of the side", 0.08),
    ("noise", "sigma, levels of 255", (0, 5, 10, 20, 30), "sigma {:g} levels", 0.06),
    ("crop_jitter", "% of the side", (0, 5, 10, 15, 20), "by {:g} % of the side", 0.02),
    ("social_media", "passes", (0, 1, 2, 3), "{:g} x", 0.08),
)


def make_results(
    *, models: int = 3, sources: int = 2, clips: int = 60, frames_each: int = 4, rounds: int = 40, seeds: int = 1
) -> Results:
    """models: 1..8, each with so many seeds; sources: 1..8; clips of each source, half as many people."""
    names = _list_models(models)
    seed_of = {f"{name}, seed {seed}": name for name, *_ in names for seed in range(2, seeds + 1)}
    names += [(more, *next(one for one in names if one[0] == first)[1:]) for more, first in seed_of.items()]
    frames = {name: _draw_frames(number, names, sources, clips, frames_each) for number, (name, *_) in enumerate(names)}
    calibrations = {name: _make_calibration(number) for number, name in enumerate(frames)}
    made = [
        ModelResult(
            name=name,
            role=role,
            file="best_model.pth",
            sha256=f"{number:x}" * 64,
            architecture="tf_efficientnet_lite2" if role == "teacher" else "tf_efficientnet_lite0",
            image_size=112,
            trained={"stage": 2 if role == "distilled" else 1, "epoch": 5, "seed": number, "averaged": False},
            validation={"val_auc": 0.8792},
            figures=build_metrics(frames[name], calibration=calibrations[name], rounds=rounds),
            drawings=build_drawings(frames[name]),
            calibration=calibrations[name],
            cost=_make_cost(number, role),
            robustness=_make_robustness(number),
            notes=("The architecture was read from the checkpoint.",) if number == 0 else (),
            learnt=("self_blended",),
            seed_of=seed_of.get(name),
        )
        for number, (name, role, *_) in enumerate(names)
    ]
    by_seed = {first: [name for name in frames if seed_of.get(name, name) == first] for first, *_ in names[:models]}
    pairs = [(a, b) for at, a in enumerate(by_seed) for b in list(by_seed)[at + 1 :]][:3]
    results = Results(
        title="The demo: teacher, student, student + distillation",
        made_at="2026-08-08T12:30:00+00:00",
        command="compare_models.py teacher/ student/ distilled/ --data faces.csv swaps/",
        verdict=(),
        protocol=PROTOCOL,
        data=tuple(
            _describe_data(number, next(iter(frames.values())), name) for number, name in enumerate(_name(sources))
        ),
        models=tuple(made),
        comparisons=tuple(
            found
            for a, b in pairs
            for found in build_comparisons(
                (a, [frames[one] for one in by_seed[a]]), (b, [frames[one] for one in by_seed[b]]), rounds=100
            )
        ),
        mistakes=make_mistakes([name for name, *_ in names]),
        training=make_training(),
        bands=(
            Band(what="Teacher, frame AUC", expected=".98 to .99", measured=".893 [.861, .923] at 112 px, other data"),
            Band(what="Gain by distillation", expected="+.005 to +.020", measured="+.066 [+.046, +.084]"),
        ),
        config={
            "seed": 7,
            "student": {"model": "tf_efficientnet_lite0"},
            "epochs": 5,
            "alpha": {"from": 0.5, "to": 0.1},
        },
        environment={
            "command": ["compare_models.py", "a b", "--data", "faces.csv"],
            "python": "3.11.7",
            "cpu": {"model": "A processor", "count": 2},
            "torch": {"version": "2.14.1", "cuda_devices": [], "deterministic": False, "cuda_build": None},
        },
        notes=("The demo's sets are small: see the intervals.",),
    )
    scored = list(frames.values())
    first = {
        "tiles": build_tiles(results, scored, rounds=rounds),
        "limits": list_limits(results),
        "verdict": write_headed_verdict(results),
    }
    return results.model_copy(update=first)


PROTOCOL = {
    "samples": "Frames, and videos by the mean of their frames' probabilities; each face cut with 12.5 % margin.",
    "intervals": "95 %, percentile bootstrap over people, 1,000 rounds, seed 0.",
    "selection": "Checkpoints by validation AUC; thresholds and temperatures on validation; nothing on this data.",
    "several_faces": "The largest face of a frame counts.",
}


def make_pictures(count: int = 12, *, size: int = 200, with_heat: bool = True) -> list[ReportPicture]:
    """Drawn faces, never a photo of anyone; heat maps with one hot place."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    pictures: list[ReportPicture] = []
    for number in range(count):
        rng = np.random.default_rng(number)
        at = rng.uniform(0.3, 0.7, 2)
        heat = np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / 0.03).astype(np.float32)
        pictures.append(ReportPicture(_draw_face(number, size), heat if with_heat else None))
    return pictures


@cache
def _draw_face(number: int, size: int) -> NDArray[np.uint8]:
    image, _ = draw_face(number + 100, size)
    return cv2.GaussianBlur(image, (3, 3), 0).astype(np.uint8)


def make_mistakes(models: Sequence[str], *, each: int = 4, pictures: int = 12) -> tuple[MistakeResult, ...]:
    """The worst of each model; the first `pictures` of all have a picture."""
    return tuple(
        MistakeResult(
            model=model,
            source="swaps" if place % 2 else "demo_faces",
            sample_id=f"person_{17 * (place + 1) + number:04d}/frame_{place:05d}.png",
            clip_id=f"person_{17 * (place + 1) + number:04d}",
            manipulation="face_swap" if place % 2 else "",
            label=place % 2,
            probability=(0.004 * (place + 1)) if place % 2 else 1 - 0.0008 * (place + 1),
            picture=each * number + place if each * number + place < pictures else None,
        )
        for number, model in enumerate(models)
        for place in range(each)
    )


def make_training(epochs: int = 12) -> TrainingResult:
    """A stage 2: alpha falls, the temperature falls, the best epoch is not the last one."""
    e = np.arange(1, epochs + 1)
    shares = (e - 1) / max(1, epochs - 1)
    columns = {
        "epoch": e,
        "train_loss": 0.3 + 0.5 * np.exp(-e / 5),
        "train_hard": 0.25 + 0.4 * np.exp(-e / 4),
        "train_kd": 0.4 + 0.6 * np.exp(-e / 6),
        "train_grad_norm": 3 + np.cos(e),
        "train_agreement": 0.95 - 0.2 * np.exp(-e / 3),
        "val_auc": 0.9 - 0.15 * np.exp(-e / 3) - 0.004 * np.maximum(0, e - 9),
        "val_video_auc": 0.93 - 0.15 * np.exp(-e / 3),
        "val_eer": 0.18 + 0.12 * np.exp(-e / 3),
        "lr": 1e-3 * (1 + np.cos(np.pi * shares)) / 2,
        "rho": np.full(epochs, 0.05),
        "hard/weight": 0.5 - 0.4 * shares,
        "kd/weight": 0.5 + 0.4 * shares,
        "kd/temperature": 4.0 - 2.0 * shares,
        "val_never": np.full(epochs, np.nan),
    }
    return TrainingResult(
        columns={name: tuple(None if v != v else float(v) for v in values) for name, values in columns.items()},
        best_epoch=min(9, epochs),
        metric="val_auc",
    )


def _list_models(count: int) -> list[tuple[str, Role, float, float]]:
    more: list[tuple[str, Role, float, float]] = [
        (f"student + distillation, features and averaged weights, seed {seed}", "model", 2.2 + 0.1 * seed, 1.2)
        for seed in range(1, 6)
    ]
    return [*MODELS, *more][:count]


def _name(sources: int) -> list[str]:
    return [*KINDS, *(f"further_set_{number}" for number in range(1, 7))][:sources]


def _draw_frames(
    number: int, models: Sequence[tuple[str, Role, float, float]], sources: int, clips: int, frames_each: int
) -> ScoredFrames:
    """The same frames for every model, some without a face."""
    shared, own = np.random.default_rng(1), np.random.default_rng(10 + number)
    rows: list[tuple[str, str, str, str, str, int]] = []
    for source in _name(sources):
        kinds = KINDS.get(source, ("", "face_swap"))
        for clip in range(clips):
            kind = kinds[clip % len(kinds)]
            for frame in range(frames_each):
                clip_id = f"clip_{clip:03d}"
                rows.append((source, kind, clip_id, f"person_{clip // 2}", f"{clip_id}/{frame:05d}", int(kind != "")))
    hardness = np.repeat(shared.normal(0, 0.8, sources * clips), frames_each) + shared.normal(0, 0.7, len(rows))
    decided = shared.random(len(rows)) > 0.02
    labels = np.array([row[5] for row in rows])
    strength = np.array([models[number][2] if row[0] == "demo_faces" else models[number][3] for row in rows])
    margins = 1.6 * (strength * (labels - 0.5) + hardness + own.normal(0, 0.6, len(rows)))
    return ScoredFrames(
        margins=margins,
        labels=labels,
        sample_ids=[row[4] for row in rows],
        clip_ids=[row[2] for row in rows],
        groups=[f"{row[0]}/{row[3]}" for row in rows],
        sources=[row[0] for row in rows],
        manipulations=[row[1] for row in rows],
        decided=decided,
    )


def _make_calibration(number: int) -> CalibrationResult:
    validation = _draw_frames(number % 3, MODELS, 1, 60, 4)
    points = choose_operating_points(validation)
    return CalibrationResult(
        fitted_on="validation: 235 frames of 30 people",
        temperature=1.42 + 0.1 * number,
        log_loss=(0.512, 0.447),
        ece=(0.083, 0.031),
        operating_points={
            level: {
                name: OperatingPointResult(threshold=point.threshold, tpr=point.tpr, fpr=point.fpr)
                for name, point in named.items()
            }
            for level, named in points.items()
        },
    )


def _make_cost(number: int, role: Role) -> CostResult:
    is_large = role == "teacher"
    return CostResult(
        parameters=4_875_000 if is_large else 3_413_000,
        macs=228_000_000 if is_large else 98_700_000,
        file_bytes=19_600_000 if is_large else 13_700_000,
        latency_ms=21.4 if is_large else 12.1 + 0.1 * number,
        latency_p95_ms=24.9 if is_large else 13.8,
        memory_bytes=61_000_000 if is_large else None,
        device="CPU, 1 thread",
        notes=() if is_large else ("Memory could not be told apart from the process's own.",),
    )


def _make_robustness(number: int) -> tuple[CorruptionCurve, ...]:
    curves: list[CorruptionCurve] = []
    for name, unit, strengths, label, loss in CORRUPTIONS:
        aucs = [0.94 - 0.02 * number - loss * (1 + 0.15 * number) * 0.8 * k**1.2 / 1.6 for k in range(len(strengths))]
        points = tuple(
            CorruptionPoint(
                strength=strength,
                label=label.format(strength) if k else "none",
                auc=MetricValue(value=auc, low=auc - 0.03, high=min(1.0, auc + 0.025)),
            )
            for k, (strength, auc) in enumerate(zip(strengths, aucs, strict=True))
        )
        area = float(np.mean([(a + b) / 2 for a, b in itertools.pairwise(aucs)]))
        curves.append(CorruptionCurve(name=name, unit=unit, points=points, area=area))
    return tuple(curves)


def _describe_data(number: int, frames: ScoredFrames, name: str) -> DataResult:
    rows = [at for at, source in enumerate(frames.sources) if source == name]
    labels = frames.labels[rows]
    kinds = [frames.manipulations[at] for at in rows if frames.manipulations[at]]
    assert frames.decided is not None
    undecided = int((~frames.decided[rows]).sum())
    return DataResult(
        name=name,
        kind="folder (cut for this)" if number else "manifest",
        split=None if number else "test",
        fingerprint=f"{number + 10:x}" * 64,
        frames=len(rows),
        faces=len(rows) - undecided,
        real=int((labels == 0).sum()),
        fake=int((labels == 1).sum()),
        videos=len({frames.clip_ids[at] for at in rows}),
        people=len({frames.groups[at] for at in rows}),
        faces_rule="The largest face of a frame counts.",
        without_decision={"no face was found": undecided},
        manipulations={kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
    )
