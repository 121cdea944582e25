"""Tells rows that are unlike the material a model was made with, by its own features.

The measure is the Mahalanobis distance (Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution
Samples and Adversarial Attacks") of the mean and the standard deviation of each channel in two layers of the model, one
early and one late, with the covariance shrunk by Ledoit and Wolf (2004). The last features before the head are not
used: training keeps in them what tells the classes apart, and little else. docs/predict.md has what was measured.

The reference lies beside the model's file, as FILE.familiar: it is stored when a run has written its report, or by
`predict.py --reference`. The threshold is a quantile of distances that each group has from the others.

Legend: N rows, D numbers of a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharpstudent.core.archive import seal_safetensors, verify
from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.core.io import write_bytes_atomically
from sharpstudent.core.types import FEATURES, Batch, Outputs
from sharpstudent.data.dataset import Samples
from sharpstudent.data.loader import load_batches
from sharpstudent.data.sampler import evaluation_batches
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.models.forward import evaluation_mode, run_model
from sharpstudent.models.hooks import hook_features, list_layers
from sharpstudent.task import Task

SUFFIX = ".familiar"  # behind the name of the model's file
PLACES = (0.2, 0.7)  # of the two layers among the model's stages, as shares of their number
MOST_NUMBERS = 512  # D; of more, evenly chosen ones are kept
QUANTILE = 0.99  # of the ordinary rows that count as familiar
FOLDS = 5
LEAST_ROWS, LEAST_GROUPS = 40, 10  # fewer support no covariance and no quantile
MOST_BATCHES, BATCH = 64, 16  # of a run's validation samples


@dataclass(frozen=True)
class FeatureStatistics:
    """Computes mean and standard deviation of each channel of some layers.

    Attributes:
        layers: The names of the layers, whose features the model gives.
        column: The name of the column (N, D).
    """

    layers: tuple[str, ...]
    column: str = "statistics"

    def measure(self, outputs: Outputs, batch: Batch) -> NDArray[np.float32]:
        """Compute the statistics (R, D) of a batch from features (R, C, h, w), or tokens (R, T, C).

        Where several rows share an input, and a layer has one feature map for each of the I shared ones, each row takes
        those of the input that it reads.

        Args:
            outputs: What the model returned for the batch, with the features of the layers.
            batch: The batch.

        Returns:
            The statistics, a row each.

        Raises:
            UserError: For a layer whose features belong neither to rows nor to shared inputs.
        """
        parts: list[Tensor] = []
        for layer in self.layers:
            features = outputs[f"{FEATURES}{layer}"].detach().float()
            flat = features.flatten(2) if features.ndim == 4 else features.transpose(1, 2)
            parts.append(_spread(torch.cat([flat.mean(2), flat.std(2, correction=0)], 1), batch, layer))
        return torch.cat(parts, 1).cpu().numpy()


@dataclass(frozen=True)
class Familiar:
    """The ordinary rows of a model, as a distribution.

    Attributes:
        statistics: Computes the statistics of rows.
        chosen: Which of the statistics are used, int64 (D,).
        mean: Their mean (D,).
        scale: Their standard deviation (D,).
        precision: The inverse of the shrunk covariance of the scaled statistics (D, D).
        threshold: The distance from which on a row is unlike the reference.
        about: What the reference is, for readers.
        column: The name of the column of distances (N,).
    """

    statistics: FeatureStatistics
    chosen: NDArray[np.int64]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    precision: NDArray[np.float32]
    threshold: float
    about: Mapping[str, Any]
    column: str = "distance"

    def measure(self, outputs: Outputs, batch: Batch) -> NDArray[np.float64]:
        """Compute the distances (R,) of a batch; the arguments are those of `FeatureStatistics.measure`."""
        return self.compute_distances(self.statistics.measure(outputs, batch)[:, self.chosen])

    def compute_distances(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Compute the Mahalanobis distances (N,) of chosen statistics (N, D)."""
        scaled = (rows.astype(np.float64) - self.mean) / self.scale
        return np.sqrt(np.maximum(np.einsum("nd,de,ne->n", scaled, self.precision.astype(np.float64), scaled), 0.0))

    def describe(self) -> dict[str, Any]:
        """Describe the reference as JSON values."""
        return {**self.about, "threshold": self.threshold}


def _spread(values: Tensor, batch: Batch, layer: str) -> Tensor:
    """Return values (R, D) of each row: from those of each row, of its V views, or of each shared input (I, D).

    Of several views the first counts, which is the input as it is without views.
    """
    views, rest = divmod(len(values), len(batch))
    if views and not rest:
        return values[::views]
    for name, index in batch.shared.items():
        if len(values) == len(batch.inputs[name]):
            return values[batch.inputs[index].to(values.device)]
    raise UserError.about(
        f"layer {layer}",
        f"gives {len(values)} feature maps for {len(batch)} rows, which belong to no input that rows share",
    )


def find_statistics(opened: OpenedModel, device: torch.device) -> FeatureStatistics:
    """Choose the layers of a model, and let it give their features from now on.

    Args:
        opened: The model.
        device: The device that it is on.

    Returns:
        What computes the statistics of its rows.

    Raises:
        UserError: For a model that has no such layers, such as an ONNX file.
    """
    found = (
        [] if next(opened.model.parameters(), None) is None else list_layers(opened.model, opened.example(2, device))
    )
    if not found:
        raise UserError.about(
            str(opened.path),
            "has no layers whose features could be compared with a reference",
            expected="a model of torch with feature maps or tokens",
            remedy="give the checkpoint that it was made from, or leave --reference out",
        )
    names = [name for name, _ in found]
    stages = [name for name in names if [part.isdecimal() for part in name.split(".")].count(True) == 1] or names
    layers = tuple(dict.fromkeys(stages[round(place * (len(stages) - 1))] for place in PLACES))
    hook_features(opened.model, layers)
    return FeatureStatistics(layers)


def fit_familiar(statistics: FeatureStatistics, rows: NDArray[np.floating], groups: Sequence[str]) -> Familiar | None:
    """Fit the distribution of ordinary rows, and its threshold.

    Args:
        statistics: What computed them.
        rows: Statistics (N, all).
        groups: The group of each row, such as a person; a group is never compared with itself.

    Returns:
        The distribution; None for too few rows or groups.
    """
    names = sorted(set(groups))
    if len(rows) < LEAST_ROWS or len(names) < LEAST_GROUPS:
        return None
    step = max(1, -(-rows.shape[1] // MOST_NUMBERS))
    chosen = np.arange(0, rows.shape[1], step, dtype=np.int64)
    rows = rows[:, chosen]
    fold_of = {name: number % FOLDS for number, name in enumerate(names)}
    folds = np.array([fold_of[group] for group in groups])
    distances = np.empty(len(rows))
    for fold in range(FOLDS):
        others = _fit(statistics, chosen, rows[folds != fold])
        distances[folds == fold] = others.compute_distances(rows[folds == fold])
    about = {
        "method": "Mahalanobis distance of channel statistics, Ledoit-Wolf covariance",
        "layers": list(statistics.layers),
        "rows": len(rows),
        "groups": len(names),
        "quantile": QUANTILE,
    }
    return _fit(statistics, chosen, rows, float(np.quantile(distances, QUANTILE)), about)


def _fit(
    statistics: FeatureStatistics,
    chosen: NDArray[np.int64],
    rows: NDArray[np.floating],
    threshold: float = 0.0,
    about: Mapping[str, Any] | None = None,
) -> Familiar:
    from sklearn.covariance import LedoitWolf

    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    precision = LedoitWolf(assume_centered=True).fit((rows - mean) / scale).precision_
    parts = (mean.astype(np.float32), scale.astype(np.float32), np.asarray(precision, np.float32))
    return Familiar(statistics, chosen, *parts, threshold, about or {})


def store_reference(
    opened: OpenedModel, layers: Sequence[str], rows: NDArray[np.floating], groups: Sequence[str], *, where: str
) -> str:
    """Store the reference of a model beside its file.

    Args:
        opened: The model.
        layers: The layers of the statistics.
        rows: Statistics of ordinary rows.
        groups: The group of each row.
        where: What the rows are, for readers.

    Returns:
        A line for the user, also where there are too few.

    Raises:
        UserError: Where the disk refuses.
    """
    found = fit_familiar(FeatureStatistics(tuple(layers)), rows, groups)
    told = f"{format_count_of(len(rows), 'row')} of {format_count_of(len(set(groups)), 'group')}"
    if found is None:
        needed = f"that needs {LEAST_ROWS} rows of {LEAST_GROUPS} groups, and there are {told}"
        return f"what is unlike the data of this model cannot be told: {needed}"
    from safetensors.numpy import save

    arrays = {name: getattr(found, name) for name in ("chosen", "mean", "scale", "precision")}
    about = {**found.describe(), "where": where, "model_sha256": opened.sha256}
    content = seal_safetensors(save(arrays), {"familiar": json.dumps(about)})
    path = name_reference(opened.path)
    write_bytes_atomically(path, content)
    return f"stored in {path}: what is ordinary for this model, by {told}"


def name_reference(path: Path) -> Path:
    """Name the file of a model's reference."""
    return path.with_name(f"{path.name}{SUFFIX}")


def open_familiar(opened: OpenedModel, say: Callable[[str], None]) -> Familiar | None:
    """Open the reference of a model, and let the model give the features that it needs.

    Args:
        opened: The model.
        say: Prints a line for the user: why a reference that is there is not used.

    Returns:
        The reference; None without one that is of this very file.
    """
    path = name_reference(opened.path)
    if not path.is_file():
        return None
    try:
        found = read_reference(path)
    except UserError as error:
        say(f"without {path.name}: {error.problems[0].what}")
        return None
    if found.about.get("model_sha256") != opened.sha256:
        say(f"without {path.name}: it is of another file than {opened.path.name}")
        return None
    hook_features(opened.model, found.statistics.layers)
    return found


def read_reference(path: Path) -> Familiar:
    """Read a reference. Raises UserError for a file that is damaged or none."""
    from safetensors import SafetensorError, safe_open

    verify(path)
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {})["familiar"])
            arrays = {name: file.get_tensor(name) for name in ("chosen", "mean", "scale", "precision")}
        size = len(arrays["chosen"])
        if any(arrays[name].shape != shape for name, shape in _list_shapes(size).items()):
            raise ValueError("arrays of other shapes")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("values that are not finite")
        threshold, layers = float(about.pop("threshold")), tuple(map(str, about["layers"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError.about(
            str(path),
            f"is no reference that can be read ({type(error).__name__}: {error})",
            remedy="delete it, or write it anew: predict.py MODEL INPUT --reference FOLDER",
        ) from None
    return Familiar(FeatureStatistics(layers), threshold=threshold, about=about, **arrays)


def _list_shapes(size: int) -> dict[str, tuple[int, ...]]:
    return {"chosen": (size,), "mean": (size,), "scale": (size,), "precision": (size, size)}


@torch.inference_mode()
def store_run_reference(
    opened: OpenedModel, task: Task, samples: Samples, device: torch.device, *, workers: int
) -> str:
    """Store the reference of a run's best model, made of the run's validation samples; of many, evenly chosen ones.

    Args:
        opened: The best model, opened for this only.
        task: The task of the run.
        samples: The validation samples.
        device: The device of the model.
        workers: How many loader processes run.

    Returns:
        A line for the log.
    """
    try:
        probe = find_statistics(opened, device)
    except UserError as error:
        return f"no reference is stored: {error.problems[0].what}"
    batches = list(evaluation_batches(len(samples), BATCH))
    places = np.unique(np.linspace(0, len(batches) - 1, min(len(batches), MOST_BATCHES)).round().astype(int))
    chosen = [batches[place] for place in places.tolist()]
    rows, groups = list[NDArray[np.float32]](), list[str]()
    with evaluation_mode(opened.model):
        for batch, _ in load_batches(samples, chosen, seed=samples.seed, num_workers=workers, collate=task.collate):
            try:
                rows.append(probe.measure(run_model(opened.model, batch.to(device).inputs), batch))
            except UserError as error:
                return f"no reference is stored: {error.problems[0].what}"
            groups += batch.rows["group"]
    return store_reference(opened, probe.layers, np.concatenate(rows), groups, where="validation of this run")
