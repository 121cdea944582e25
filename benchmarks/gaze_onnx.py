"""How long an exported gaze model takes a picture with two heads on one core, by the side of the picture.

    OMP_NUM_THREADS=1 python benchmarks/gaze_onnx.py

The student of `make demo-gaze` (frozen tf_efficientnet_lite0, head of 64 channels and 2 blocks) with random weights, as
ONNX by onnxruntime with one thread, and in torch. Also by how much the outputs of the two differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch
from sharpstudent.core.types import ModelSpec
from sharpstudent.deploy.convert import build_form, quiet, to_onnx
from sharpstudent.tasks.gaze.section import GazeSection
from sharpstudent.tasks.gaze.task import GazeTask

SIDES, HEADS, RUNS = (224, 320, 448, 640), 2, 9
OPTIONS = {"dim": 64, "layers": 2, "fine": True, "pooled": True}


def measure(compute: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the least processor time of some runs [ms]."""
    times: list[float] = []
    for _ in range(RUNS):
        begun = time.process_time()
        result = compute()
        times.append(1e3 * (time.process_time() - begun))
    return result, min(times)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for side in SIDES:
        task = GazeTask(GazeSection.model_validate({"image_size": side}))
        model = task.build_student(ModelSpec("gazelle_tf_efficientnet_lite0", OPTIONS)).eval()
        with quiet():
            content = to_onnx(build_form(model, task.example_batch(3), task.export_spec())).SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        given = {
            "image": torch.rand(1, 3, side, side),
            "image_index": torch.zeros(HEADS, dtype=torch.int64),
            "box": torch.tensor([[0.1, 0.1, 0.3, 0.4], [0.6, 0.2, 0.8, 0.5]]),
        }
        arrays = {one.name: given[one.name].numpy() for one in session.get_inputs()}
        (found, *_), onnx = measure(lambda session=session, arrays=arrays: session.run(None, arrays))
        with torch.inference_mode():
            outputs, plain = measure(lambda model=model, given=given: model(**given))
        far = float(np.abs(found - outputs["heatmap"].numpy()).max())
        print(f"{side} px: {onnx:.1f} ms by onnxruntime, {plain:.1f} ms in torch, maps differ by {far:.1e}", flush=True)


if __name__ == "__main__":
    main()
