"""An ONNX file as a classifier like any other: pictures in, one logit for each class out.

Legend: B pictures, C classes, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.engine.onnx_graph import OnnxGraph, run_graph
from lib.errors import Problem, UserError
from lib.models.classifier import Classifier

_SUM_TOLERANCE = 1e-3  # of probabilities; half precision rounds to 5e-4


class OnnxClassifier(Classifier):
    """Runs on onnxruntime; logits come back on the device of the images, and no gradient passes through.

    graph: its output is (B, C) logits or, of two classes, (B, 1) or (B,) log-odds of the second.
    """

    def __init__(self, graph: OnnxGraph, *, classes: Sequence[str]) -> None:
        super().__init__()
        self.graph, self.classes = graph, tuple(classes)

    def compute_logits(self, images: Tensor) -> Tensor:
        pictures = np.ascontiguousarray(images.detach().cpu().numpy(), dtype=np.float32)
        return torch.from_numpy(self._to_logits(run_graph(self.graph, pictures))).to(images.device)

    def get_features(self, images: Tensor) -> NoReturn:
        raise UserError(
            Problem(
                str(self.graph.path),
                "gives logits alone: an ONNX file has no feature maps",
                remedy="give the checkpoint that it was exported from",
            )
        )

    def enable_gradient_checkpointing(self) -> NoReturn:
        raise UserError(
            Problem(str(self.graph.path), "cannot be trained: it is an ONNX file", remedy="train the checkpoint")
        )

    def check_outputs(self, image_size: int) -> None:
        """Judge a few very different pictures of S = image_size. Raises UserError for outputs of another shape, and
        for probabilities: as logits they would be squeezed a second time.
        """
        pictures = _make_varied(image_size)
        said = run_graph(self.graph, pictures)
        self._to_logits(said)
        if _is_share(said):
            # One number in 0..1 may be a weak model's log-odds; far beyond 0..1 only a sigmoid stays in there.
            alone = said.ndim == 1 or said.shape[1] == 1
            if alone and _is_share(run_graph(self.graph, 200.0 * pictures - 100.0)):
                self._refuse_probabilities("every output for 8 very different pictures is within 0 and 1")
            if not alone and np.all(np.abs(said.sum(axis=1) - 1.0) <= _SUM_TOLERANCE):
                self._refuse_probabilities("for 4 very different pictures the outputs of each add up to 1")

    def _to_logits(self, said: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, C) from what the graph gave."""
        count = len(self.classes)
        if said.ndim == 2 and said.shape[1] == count:
            return said
        if count == 2 and (said.ndim == 1 or (said.ndim == 2 and said.shape[1] == 1)):
            odds = said.reshape(-1)
            return np.stack([np.zeros_like(odds), odds], axis=1)
        shape = ", ".join(["N", *(str(size) for size in said.shape[1:])])
        raise UserError(
            Problem(
                str(self.graph.path),
                f"gives another number of outputs than the task has classes ({', '.join(self.classes)})",
                expected=f"logits (N, {count})"
                + (f", or log-odds of {self.classes[1]}, (N, 1) or (N,)" if count == 2 else ""),
                got=f"{self.graph.output_name}: ({shape})",
                remedy="give a model that was trained on this task",
            )
        )

    def _refuse_probabilities(self, seen: str) -> NoReturn:
        raise UserError(
            Problem(
                str(self.graph.path),
                "gives probabilities, not logits",
                expected="logits (before softmax or sigmoid), which thresholds and calibration are made of",
                got=f"{self.graph.output_name}: {seen}",
                remedy="export the model without its last softmax or sigmoid",
            )
        )


def _make_varied(side: int) -> NDArray[np.float32]:
    """Four pictures (4, 3, S, S) in 0..1 that have nothing in common: black, white, a slope of each colour, noise."""
    pictures = np.zeros((4, 3, side, side), np.float32)
    pictures[1] = 1.0
    slope = np.linspace(0.0, 1.0, side, dtype=np.float32)
    pictures[2] = np.stack(np.broadcast_arrays(slope[None], slope[:, None], slope[None, ::-1]))
    pictures[3] = np.random.default_rng(0).random((3, side, side), dtype=np.float32)
    return pictures


def _is_share(said: NDArray[np.float32]) -> bool:
    return bool(np.all((said >= 0.0) & (said <= 1.0)))
