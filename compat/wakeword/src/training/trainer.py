"""`Trainer` of the wake-word guide: a config in its words becomes a run of `train_student_only.py`."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import make_folder, write_text_atomically
from sharpstudent.core.naming import clean_name
from sharpstudent.criterion.classification import compute_cross_entropy
from sharpstudent.report.logs import MetricsFile
from torch import Tensor, nn
from torch.utils.data import DataLoader

from src.config.defaults import WakewordConfig
from src.data.dataset import WakewordDataset
from src.training.checkpoint_manager import CheckpointManager

QAT_STEPS = 300  # of fine-tuning for int8, after training
INT8 = "-int8.onnx"
ROOT = Path(__file__).resolve().parents[4]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # the scripts, which are no part of the package


class Trainer:
    """Trains a student without a teacher.

    Attributes:
        metrics: The parts of the loss that `compute_loss` has computed, one mapping a call.
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: DataLoader[Any],
        val_loader: DataLoader[Any],
        config: WakewordConfig,
        checkpoint_manager: CheckpointManager,
        device: str = "cpu",
    ) -> None:
        """Keep everything; nothing is trained yet.

        Args:
            model: A student of `create_model`.
            train_loader: Over a `WakewordDataset`.
            val_loader: The same for validation.
            config: The config.
            checkpoint_manager: Where runs go.
            device: cpu or cuda.

        Raises:
            UserError: For a loader over another data set, and for a config that cannot be trained with.
        """
        self.model, self.config, self.checkpoint_manager, self.device = model, config, checkpoint_manager, device
        self.train_data, self.val_data = _find_dataset(train_loader), _find_dataset(val_loader)
        self.metrics: list[dict[str, float]] = []
        config.check()

    def compute_loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        inputs: Tensor | None = None,
        processed_inputs: Tensor | None = None,
        is_hard_negative: Tensor | None = None,
    ) -> Tensor:
        """Compute the cross-entropy; hard negatives weigh `training.hard_negative_weight`.

        Args:
            outputs: Logits (R, 2).
            targets: Labels (R,).
            inputs: What the student was given; not needed here.
            processed_inputs: Its spectrogram; not needed here.
            is_hard_negative: 1 for hard negatives (R,).
        """
        losses = compute_cross_entropy(outputs, targets)
        if is_hard_negative is None:
            return losses.mean()
        weights = 1.0 + (self.config.training.hard_negative_weight - 1.0) * is_hard_negative.to(losses)
        return (losses * weights).sum() / weights.sum()

    def log_metrics(self, values: dict[str, float]) -> None:
        """Keep the parts of a loss."""
        self.metrics.append(values)

    def train(self) -> dict[str, Any]:
        """Train, and load the best epoch into the model.

        Returns:
            `best_f1` (also as `best_val_f1`), `best_checkpoint` and `run`, the run's folder; with `qat.enabled` also
            `int8`, the file for a device, or None where it would be worse than the model.
        """
        keys = self.config.to_keys(self.train_data.data_root)
        keys["student_init"] = str(self._save_start())
        return self._run("train_student_only", self.name, keys)

    @property
    def name(self) -> str:
        """The name of the run."""
        return clean_name(self.config.config_name).replace(" ", "_") or "wakeword"

    def _save_start(self) -> Path:
        """Save the weights that the model has now: training begins with them."""
        make_folder(self.checkpoint_manager.checkpoint_dir)
        path = self.checkpoint_manager.checkpoint_dir / f"{self.name}_start.safetensors"
        tensors = getattr(self.model, "inner", self.model).state_dict()
        save_file({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, path)
        return path

    def _run(self, script: str, name: str, keys: dict[str, Any]) -> dict[str, Any]:
        """Run a script of the project on these keys."""
        folder = self.checkpoint_manager.checkpoint_dir
        if self.config.description:
            print(f"{name}: {self.config.description}")
        device = "cuda" if str(self.device).startswith("cuda") else "cpu"
        precision = "bf16" if self.config.optimizer.mixed_precision and device == "cuda" else "fp32"
        own = {
            "device": device,
            "precision": precision,
            "output_root": str(folder),
            "seed": torch.initial_seed() % 2**31,
            "report": False,  # `python evaluate_model.py RUN` makes one
        }
        make_folder(folder)
        path = folder / f"{name}.json"
        write_text_atomically(path, json.dumps({**keys, **own}, indent=2) + "\n")
        _call_script(script, [str(path), "-n", name])
        if trains_student(keys, self.config):
            self.checkpoint_manager.load_best(name, self.model)
        run, found = self.checkpoint_manager.list_runs(name)[-1], self.checkpoint_manager.find_best(name)
        rows = MetricsFile(run / "logs" / "metrics.csv").read()
        best_f1 = max(float(row["val_f1"] or 0.0) for row in rows)
        results = {"best_f1": best_f1, "best_val_f1": best_f1, "best_checkpoint": str(found), "run": str(run)}
        if trains_student(keys, self.config) and self.config.qat.enabled:
            results["int8"] = self._export_int8(run)
        return results

    def _export_int8(self, run: Path) -> str | None:
        """Fine-tune the best epoch for int8 and write it; a file that is worse is refused, and the training is kept."""
        target = run / "exports" / f"{run.name}{INT8}"
        words = [str(run), "--to", "onnx-int8", "--qat-steps", str(QAT_STEPS), "--workers", "0", "--out", str(target)]
        try:
            _call_script("export_model", words)
        except UserError as error:
            warnings.warn(f"the model is trained, its int8 file was refused.\n{error.as_text()}", stacklevel=2)
            return None
        return str(target)


def trains_student(keys: dict[str, Any], config: WakewordConfig) -> bool:
    """Whether a run trains the student of the config, and not the head of its teacher."""
    return keys["student"] == config.model.architecture


def _call_script(script: str, words: list[str]) -> None:
    """Call the `main` of a script with a command line of its own."""
    module, before = __import__(script), sys.argv
    try:
        sys.argv = [f"{script}.py", *words]
        module.main()
    finally:
        sys.argv = before


def _find_dataset(loader: DataLoader[Any]) -> WakewordDataset:
    found = loader.dataset
    if not isinstance(found, WakewordDataset):
        raise UserError.about(
            "loader", "is over another data set", expected="DataLoader(WakewordDataset(...), batch_size=32)",
            got=type(found).__name__,
        )  # fmt: skip
    return found
