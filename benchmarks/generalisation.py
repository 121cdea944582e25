"""How well detectors find kinds of fakes, people and photo sets that they were not trained on (docs/generalisation.md).

    python benchmarks/generalisation.py make FOLDER DATA            tables of photos, and the stand-ins
    python benchmarks/generalisation.py judge FOLDER RUN...         score the open stand-ins with trained runs
    python benchmarks/generalisation.py judge FOLDER RUN... --closed    score the closed ones, too: once, at the end
    python benchmarks/generalisation.py compare FOLDER --arm today=RUN,RUN,RUN --arm new=RUN,RUN,RUN --against today
    python benchmarks/generalisation.py epochs FOLDER RUN...        which validation chooses the better epoch

DATA holds the three sets of photos of `make train-free`. Training reads FOLDER/train.csv: no photo of the London
studio, and nobody of the test people. Stand-ins are fakes of the test people in colour (`wild`), in grey (`grey`), of
the London studio (`london`), and of the portraits of the demo (`portraits`, fetched; whoever is in a photo of DATA,
too, is left out), each plain and after compression and resizing; crops are 224 px wide when they are damaged. A run is
a folder of `train_student_only.py`, or one of its checkpoints; for `epochs` it must have kept all of them
(`keep_best`).
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.naming import format_csv
from sharpstudent.evaluation.load_model import ModelFile, open_model
from sharpstudent.metrics.bootstrap import compute_interval, compute_paired
from sharpstudent.metrics.intervals import Estimate
from sharpstudent.metrics.metric import make_binary_metric
from sharpstudent.modalities.faces.corruptions import CORRUPTIONS, corrupt, find_evaluation_crop
from sharpstudent.tasks.deepfake.evaluation.crops_set import read_crops_set
from sharpstudent.tasks.deepfake.evaluation.set_request import SetRequest

from demo.free_photos import TENTHS, join_copies, list_photos
from demo.write_blends import write_blends

SIDE = 224  # of the crops [px]
KINDS = ("self_blend", "poisson", "feather", "affine", "hard", "multiband")
SETS = ("wild", "grey", "london", "portraits")
PORTRAIT = "portrait_"  # begins the names of the people of the demo's portraits
VALIDATION = "val"  # people who choose the epoch
CLOSED_KINDS, CLOSED_SETS = ("multiband",), ("portraits",)
DAMAGE = {
    "plain": None,
    "jpeg50": ("jpeg", 50),
    "h264_23": ("h264", 23),
    "h264_28": ("h264", 28),
    "h264_35": ("h264", 35),
    "resize50": ("resize", 50),
}
PER_FACE = {"wild": 3, "grey": 2, "london": 1, "portraits": 1, "val": 1}  # fakes of each photo and kind
AUC = make_binary_metric("auc", lambda table: table["margin"])
BATCH = 24
StandIn = tuple[str, str]  # set and kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    parts = {name: commands.add_parser(name) for name in ("make", "judge", "compare", "epochs")}
    for part in parts.values():
        part.add_argument("folder", type=Path)
    parts["make"].add_argument("data", type=Path)
    parts["make"].set_defaults(run=lambda o: make(o.data.resolve(), o.folder))
    parts["judge"].add_argument("runs", type=Path, nargs="+")
    parts["judge"].add_argument(
        "--closed", action="store_true", help="also what stays closed until the last measurement"
    )
    parts["judge"].set_defaults(run=lambda o: judge(o.folder, o.runs, list_stand_ins(o.closed), [*DAMAGE]))
    parts["compare"].add_argument("--arm", action="append", required=True, help="NAME=RUN,RUN,...: one run a seed")
    parts["compare"].add_argument("--against", required=True, help="the arm that the others are compared with")
    parts["compare"].set_defaults(run=lambda o: compare(o.folder, dict(map(read_arm, o.arm)), o.against))
    parts["epochs"].add_argument("runs", type=Path, nargs="+")
    parts["epochs"].set_defaults(run=lambda o: compare_epochs(o.folder, o.runs))
    options = parser.parse_args()
    cv2.setNumThreads(1)
    options.run(options)


def read_arm(words: str) -> tuple[str, list[Path]]:
    name, _, runs = words.partition("=")
    return name, [Path(run) for run in runs.split(",")]


def make(data: Path, folder: Path) -> None:
    """Write the table that training reads, and the stand-ins of those whom it leaves out."""
    photos = list_photos(data, {7: "test", **TENTHS})
    write_table(folder / "train.csv", [row for row in photos if not is_london(row[1])])
    photos += list_portraits({Path(path): person for path, person, _ in photos})
    for name in (*SETS, VALIDATION):
        chosen = {person: path for path, person, split in reversed(photos) if find_set(person, split) == name}
        people = [(path, person, "test") for person, path in reversed(chosen.items())]  # the first photo of each
        write_table(folder / f"{name}.csv", people)
        write_blends(folder / f"{name}.csv", folder / name / "self_blend", SIDE, PER_FACE[name])
        for kind in KINDS[1:]:
            words = ["--blending", kind, "--per-face", str(PER_FACE[name]), "--image-size", str(SIDE)]
            command = [sys.executable, str(ROOT / "make_swaps.py"), f"{folder}/{name}.csv", f"{folder}/{name}/{kind}"]
            subprocess.run([*command, *words, "--split", "test"], check=True)


def list_portraits(photos: Mapping[Path, str]) -> list[tuple[str, str, str]]:
    """Fetch the demo's portraits; list path, person and split of those that show nobody who is in a photo."""
    subprocess.run([sys.executable, str(ROOT / "demo/fetch_portraits.py")], check=True, cwd=ROOT)
    table = ROOT / "data/demo/faces.csv"
    with open(table, newline="", encoding="utf-8") as file:
        portraits = {(table.parent / row["path"]).resolve(): PORTRAIT + row["person"] for row in csv.DictReader(file)}
    people = join_copies({**photos, **portraits})  # who is in both has the name of the photo
    return [(str(path), people[path], "test") for path in portraits if people[path].startswith(PORTRAIT)]


def is_london(person: str) -> bool:
    return person.startswith("london")


def find_set(person: str, split: str) -> str | None:
    if is_london(person):
        return "london"
    if person.startswith(PORTRAIT):
        return "portraits"
    tested = "grey" if person.startswith("congress") else "wild"
    return {"test": tested, "val": VALIDATION}.get(split)


def write_table(path: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    write_text_atomically(path, format_csv([("path", "person", "split"), *rows]))
    print(f"{path}: {len(rows)} photos of {len({row[1] for row in rows})} people")


def list_stand_ins(closed: bool) -> list[StandIn]:
    """Set and kind of each stand-in."""
    every = [(name, kind) for name in SETS for kind in KINDS]
    return [(name, kind) for name, kind in every if closed or (name not in CLOSED_SETS and kind not in CLOSED_KINDS)]


def judge(folder: Path, runs: Sequence[Path], stand_ins: Sequence[StandIn], damages: Sequence[str]) -> None:
    """Score stand-ins with each run, and keep the scores in FOLDER/scores/."""
    torch.set_num_threads(1)
    opened = [open_model(ModelFile(run), classes=("real", "fake"), device=torch.device("cpu")) for run in runs]
    scored: dict[tuple[int, str], dict[int, float]] = {}
    for name, kind in stand_ins:
        missing = [place for place, run in enumerate(runs) if not find_scores(folder, run, name, kind).exists()]
        if not missing:
            continue
        faces = read_crops_set(SetRequest(path=folder / name / kind, crops=True), name=kind).faces
        rows = {"id": [one.name for one in faces], "group": [one.identity for one in faces]}
        found: list[dict[str, Any]] = [{**rows, "label": [one.label for one in faces]} for _ in missing]
        pictures = [face.read().image for face in faces]
        keys = [hash(picture.tobytes()) for picture in pictures]  # kinds share their real pictures
        for damage in damages:
            known = [scored.setdefault((place, damage), dict[int, float]()) for place in missing]
            new = [index for index, key in enumerate(keys) if any(key not in one for one in known)]
            crops = [damage_picture(pictures[index], damage) for index in new]
            for place, scores, one in zip(missing, found, known, strict=True):
                one.update(zip((keys[index] for index in new), score(opened[place], crops), strict=True))
                scores[damage] = [one[key] for key in keys]
        for place, scores in zip(missing, found, strict=True):
            write_text_atomically(find_scores(folder, runs[place], name, kind), json.dumps(scores))
        print(f"{name} {kind}: {len(faces)} pictures, {len(missing)} models", flush=True)


def find_scores(folder: Path, run: Path, name: str, kind: str) -> Path:
    called = run.name if run.is_dir() else f"{run.parents[1].name}__{run.stem}"
    return folder / "scores" / called / f"{name}_{kind}.json"


def damage_picture(picture: NDArray[np.uint8], damage: str) -> NDArray[np.uint8]:
    face, wanted = find_evaluation_crop(picture, None), DAMAGE[damage]
    if wanted is None:
        return picture
    name, severity = wanted
    (found,) = [one for one in CORRUPTIONS if one.name == name]
    return corrupt(face, found, found.severities.index(severity), seed=0, index=0)  # nothing here is random


@torch.no_grad()
def score(opened: Any, crops: Sequence[NDArray[np.uint8]]) -> list[float]:
    """The log-odds of fake of each crop."""
    side, margins = opened.input_key, list[float]()
    opened.model.to(memory_format=torch.channels_last)
    for begin in range(0, len(crops), BATCH):
        resized = [cv2.resize(crop, (side, side)) for crop in crops[begin : begin + BATCH]]
        batch = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
        logits = opened.model(batch)["logits"].double()
        margins += (logits[:, 1] - logits[:, 0]).tolist()
    return margins


def compare(folder: Path, arms: dict[str, list[Path]], against: str) -> None:
    """Print AUC of each arm on each stand-in, mean of its seeds, and its difference to one of them.

    Stand-ins are also taken together: all kinds but self-blends of one set, and one kind of all people whose sets of
    photos trained.
    """
    runs = [run for found in arms.values() for run in found]
    pools = [(name, parts) for name, parts in list_pools() if are_scored(folder, runs, parts)]
    if not pools:
        sys.exit("no stand-in is scored by every run: `judge` them first")
    known = [set(read_all(folder, run, *pools[0][1][0])) for run in runs]
    rows: list[dict[str, Any]] = []
    for damage in [one for one in DAMAGE if all(one in scores for scores in known)]:
        print(f"\n{damage}\n| Stand-in | {' | '.join(arms)} |\n|---|{'---|' * len(arms)}")
        for (name, kind), parts in pools:
            tables = {arm: [read_scores(folder, run, parts, damage) for run in runs] for arm, runs in arms.items()}
            cells: list[str] = []
            for arm, found in tables.items():
                value = compute_interval(AUC, found, group_unit="person")
                gap = None if arm == against else compute_paired(AUC, found, tables[against], group_unit="person")
                cells.append(tell(value) if gap is None else f"{value.value:.3f}; {tell(gap, '+.3f')}")
                rows.append({"damage": damage, "set": name, "kind": kind, "arm": arm} | as_row(value, gap))
            print(f"| {name}, {kind} | {' | '.join(cells)} |", flush=True)
    write_text_atomically(folder / "compared.csv", format_csv([tuple(rows[0]), *(tuple(row.values()) for row in rows)]))


def list_pools() -> list[tuple[tuple[str, str], list[StandIn]]]:
    """Name of set and of kind, and the stand-ins that are taken together under it."""
    single = [(one, [one]) for one in list_stand_ins(True)]
    of_set = [((name, "all swaps"), [(name, kind) for kind in KINDS[1:]]) for name in SETS]
    of_kind = [(("wild and grey", kind), [("wild", kind), ("grey", kind)]) for kind in KINDS]
    return [*single, *of_set, *of_kind]


def are_scored(folder: Path, runs: Sequence[Path], parts: Sequence[StandIn]) -> bool:
    return all(find_scores(folder, run, *part).exists() for run in runs for part in parts)


def read_all(folder: Path, run: Path, name: str, kind: str) -> dict[str, Any]:
    return json.loads(find_scores(folder, run, name, kind).read_text("utf-8"))


def read_scores(folder: Path, run: Path, parts: Sequence[StandIn], damage: str) -> dict[str, Any]:
    found: dict[str, list[Any]] = {"id": [], "group": [], "label": [], "margin": []}
    for name, kind in parts:
        known = read_all(folder, run, name, kind)
        found["id"] += [f"{name}/{kind}/{one}" for one in known["id"]]
        for column, key in (("group", "group"), ("label", "label"), ("margin", damage)):
            found[column] += known[key]
    return {column: np.array(values) for column, values in found.items()}


def compare_epochs(folder: Path, runs: Sequence[Path]) -> None:
    """Print what each way to choose an epoch gives on stand-ins, mean of AUC over these.

    The ways are validation on self-blends, validation on several kinds of fakes of the same people, plain and after
    H.264, and the last epoch. `best` is what no validation can beat. Every second epoch is looked at.
    """
    damages = ["plain", "h264_28"]
    mixed = [(VALIDATION, kind) for kind in ("self_blend", "poisson", "affine")]
    targets = [("london", "hard"), ("london", "affine")]
    print("| Run | epoch by self-blends | by the mixture | last | best |\n|---|---|---|---|---|")
    for run in runs:
        files = sorted((run / "weights").glob("*_val.pth"), key=lambda path: int(path.name.split("_")[0]))[1::2]
        judge(folder, files, [*mixed, *targets], damages)
        alone = [mean_auc(folder, file, mixed[:1], ["plain"]) for file in files]
        several = [mean_auc(folder, file, mixed, damages) for file in files]
        gained = [mean_auc(folder, file, targets, damages) for file in files]
        chosen = {"alone": int(np.argmax(alone)), "mixed": int(np.argmax(several)), "last": -1}
        cells = [f"{files[place].name.split('_')[0]}: {gained[place]:.3f}" for place in chosen.values()]
        ranks = [float(np.corrcoef(rankdata(one), rankdata(gained))[0, 1]) for one in (alone, several)]
        print(f"| {run.name} | {' | '.join(cells)} | {max(gained):.3f} | rank correlation {ranks}", flush=True)


def mean_auc(folder: Path, run: Path, stand_ins: Sequence[StandIn], damages: Sequence[str]) -> float:
    tables = [read_scores(folder, run, [one], damage) for one in stand_ins for damage in damages]
    return float(np.mean([AUC.value(table) for table in tables]))


def tell(found: Estimate, form: str = ".3f") -> str:
    return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"


def as_row(value: Estimate, gap: Estimate | None) -> dict[str, Any]:
    found = {"auc": value.value, "low": value.low, "high": value.high, "people": value.groups}
    of_gap = (None, None, None) if gap is None else (gap.value, gap.low, gap.high)
    return found | dict(zip(("gain", "gain_low", "gain_high"), of_gap, strict=True))


if __name__ == "__main__":
    main()
