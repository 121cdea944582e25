"""How many times as fast are exported students as the teacher in torch? Latency alone: all weights are random.

    python benchmarks/export_speed.py --side 380 --threads 1 --json benchmarks/export_speed.json

Each student is measured in torch, as ONNX in fp32 and in int8 (every layer, ranges of random pictures). All models take
turns, so that other work of the machine slows all of them alike; the factor is the median over the turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lib"))

import torch
from sharpstudent.core.types import Batch, ExportSpec
from sharpstudent.deploy import convert
from sharpstudent.deploy.benchmark import CPU, Timing, time_models
from sharpstudent.evaluation.load_model import ModelFile, OpenedClassifier, make_pictures, open_model
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.evaluation.runtimes import ExportAbout
from sharpstudent.models.vision import EFFICIENTNET_B4, build_classifier
from sharpstudent.report.environment import describe_environment

STUDENTS = ("tf_efficientnet_lite0", "mobilenetv3_small_100", "mobilevitv2_050", "mobilevitv2_200")
CLASSES = ("first", "second")


def open_random(name: str, side: int) -> OpenedModel:
    """A classifier of random weights in torch."""
    torch.manual_seed(0)
    model = OpenedClassifier(build_classifier(name, classes=2, dropout=0.0, side=side).eval())
    return OpenedModel(
        name=f"{name}, torch",
        path=Path(name),
        sha256="",
        kind="checkpoint",
        model=model,
        architecture=name,
        about={},
        notes=(),
        example=lambda count, device: make_pictures(side, count, device),
        reopen={},
    )


def export(opened: OpenedModel, side: int, folder: Path) -> list[OpenedModel]:
    """The same model as ONNX in fp32 and in int8."""
    from sharpstudent.deploy.quantize import Quantizer

    pictures = torch.rand(convert.TRACED_ROWS, 3, side, side)
    form = convert.build_form(opened.model, Batch({"image": pictures}, rows={"id": ("a", "b", "c")}), ExportSpec())
    model = convert.to_onnx(form)
    inputs = [{"image": make_pictures(side, 2, CPU)["image"].numpy()}]
    int8 = Quantizer(model, inputs, picture=None).quantize()
    found: list[OpenedModel] = []
    for word, one in (("ONNX", model), ("ONNX int8", int8)):
        path = folder / f"{opened.architecture}-{word}.onnx".replace(" ", "-")
        about = ExportAbout.model_validate(
            {"format": word, "inputs": form.describe_inputs(), "outputs": form.outputs, "side": side}
        )
        texts = {"export": about.model_dump_json(), "classes": json.dumps(CLASSES), "architecture": path.stem}
        convert.write_onnx(path, one, texts)
        name = f"{opened.architecture}, {word}"
        found.append(open_model(ModelFile(path, name), classes=CLASSES, device=CPU))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=380)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--students", nargs="+", default=STUDENTS)
    parser.add_argument("--json", type=Path)
    read = parser.parse_args()
    torch.set_num_threads(read.threads)
    with tempfile.TemporaryDirectory() as place:
        models = [open_random(EFFICIENTNET_B4, read.side)]
        for name in read.students:
            student = open_random(name, read.side)
            models += [student, *export(student, read.side, Path(place))]
            print(f"exported {name}", flush=True)
        timings = time_models(models, threads=read.threads, batch=1, repeats=read.repeats)
        sizes = [one.path.stat().st_size if one.path.is_file() else None for one in models]
    show(timings, sizes)
    if read.json:
        measured: dict[str, Any] = {"side": read.side, "timings": [asdict(one) for one in timings], "bytes": sizes}
        read.json.write_text(json.dumps(measured | {"environment": describe_environment()}, indent=2) + "\n")


def show(timings: list[Timing], sizes: list[int | None]) -> None:
    """Print a table."""
    for one, size in zip(timings, sizes, strict=True):
        low, high = one.factor_range
        shown = "" if size is None else f"{size / 1e6:.2f} MB"
        times = f"{one.best_ms:8.1f} ms, median {one.p50_ms:8.1f} ms"
        print(f"{one.model:38} {times} {one.factor:6.1f} x ({low:.1f} to {high:.1f}) {shown:>9}")


if __name__ == "__main__":
    main()
