"""`DistillationTrainer` of the wake-word guide: a config in its words becomes a run of `main_distillation.py`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.files import read_json
from sharpstudent.core.types import ModelSpec
from sharpstudent.criterion.distillation import compute_kd
from sharpstudent.models.weight_files import read_tensors
from sharpstudent.models.weights import load_weights
from sharpstudent.tasks.wakeword.section import WakewordSection
from sharpstudent.tasks.wakeword.speech_embedding import refuse_spectrogram
from sharpstudent.tasks.wakeword.task import WakewordTask
from sharpstudent.tasks.wakeword.wav2vec2 import FOLDER, load_pretrained
from torch import Tensor, nn

from src.training.trainer import Trainer

SKIPPED = "Distillation skip verified: Teacher NOT called with spectrogram inputs"
HEAD_EPOCHS = 8  # of the fit of a teacher's head
HEAD_RUN = "teacher_head"


class DistillationTrainer(Trainer):
    """Trains a student that also learns from a frozen teacher of raw audio.

    Attributes:
        teacher: The frozen teacher; None where distillation is not enabled.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        """Take what `Trainer` takes, and load the teacher: built, weights loaded, frozen, moved to the device.

        Raises:
            UserError: Where its weights are not there or do not fit.
        """
        super().__init__(*args, **named)
        self.teacher: nn.Module | None = self._init_teacher() if self.config.distillation.enabled else None

    def _init_teacher(self) -> nn.Module:
        own = self.config.distillation
        section = WakewordSection(sample_rate=self.config.data.sample_rate, duration=self.config.data.audio_duration)
        model = WakewordTask(section).build_teacher(
            ModelSpec(own.teacher_architecture, self._options(), role="teacher")
        )
        print(f"teacher {own.teacher_architecture}: built")
        if own.teacher_model_path:
            path = own.teacher_model_path
            line = load_weights(model, read_tensors(Path(path)), where=path, needs_head=True)
        elif own.teacher_architecture == "wav2vec2":
            line = load_pretrained(model, "wav2vec2", "distillation.teacher_model_path", partial=False)
        else:
            line = "its body is loaded when it is needed"
        print(f"teacher {line}")
        model.requires_grad_(False).eval()
        print("teacher: frozen")
        if not own.teacher_model_path:
            warnings.warn("the teacher's head is random: train() fits it before the student learns", stacklevel=3)
        return model.to(self.device)

    def _options(self) -> dict[str, Any]:
        """Read the form of a wav2vec2 from the config.json beside its weights; {} for the form of wav2vec2-base."""
        path = FOLDER / "config.json"
        if self.config.distillation.teacher_architecture != "wav2vec2" or not path.is_file():
            return {}
        return {name: value for name, value in read_json(path).items() if name not in ("architectures", "model_type")}

    def compute_loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        inputs: Tensor | None = None,
        processed_inputs: Tensor | None = None,
        is_hard_negative: Tensor | None = None,
    ) -> Tensor:
        """Compute (1 - alpha) cross-entropy + alpha T² KL(teacher || student).

        Args:
            outputs: The student's logits (R, 2).
            targets: Labels (R,).
            inputs: Raw audio (R, S), which the teacher hears. With a spectrogram the loss is that of the labels alone,
                and a warning says so.
            processed_inputs: The student's spectrogram; not needed here.
            is_hard_negative: 1 for hard negatives (R,).
        """
        student_loss = super().compute_loss(outputs, targets, inputs, processed_inputs, is_hard_negative)
        if self.teacher is None or inputs is None:
            return student_loss
        if inputs.dim() > 2:
            warnings.warn(f"{SKIPPED}\n{refuse_spectrogram(str(tuple(inputs.shape))).as_text()}", stacklevel=2)
            return student_loss
        if inputs.shape[0] != outputs.shape[0]:
            raise UserError.about(
                "compute_loss", "teacher and student were given different batches",
                expected="the same rows for both", got=f"{inputs.shape[0]} and {outputs.shape[0]}",
            )  # fmt: skip
        with torch.no_grad():
            teacher_logits = self.teacher(inputs)["logits"]
        for name, logits in (("teacher", teacher_logits), ("student", outputs)):
            if not torch.isfinite(logits).all():
                raise UserError.about("compute_loss", f"the logits of the {name} are no numbers",
                                      remedy="temperature 2.0, gradient_clip 1.0, a smaller learning rate")  # fmt: skip
        own = self.config.distillation
        distillation_loss = compute_kd(outputs, teacher_logits, own.temperature).mean()
        total = (1.0 - own.alpha) * student_loss + own.alpha * distillation_loss
        values = {"student_loss": student_loss.item(), "distillation_loss": distillation_loss.item(),
                  "total_loss": total.item()}  # fmt: skip
        self.log_metrics({**values, "loss_ratio": values["distillation_loss"] / max(values["student_loss"], 1e-12)})
        return total

    def train(self) -> dict[str, Any]:
        """Fit the teacher's head where nobody has, then train the student; return what `Trainer.train` does."""
        if self.teacher is None or self.config.distillation.alpha == 0.0:
            return super().train()
        if not (self.train_data.return_raw_audio and self.val_data.return_raw_audio):
            raise refuse_spectrogram("WakewordDataset(return_raw_audio=False)")
        own = self.config.distillation
        spec = {"name": own.teacher_architecture, **self._options()} if self._options() else own.teacher_architecture
        keys = self.config.to_keys(self.train_data.data_root)
        weights = own.teacher_model_path or self._fit_head(keys, spec)
        keys |= {"teacher": spec, "teacher_weights": weights, "pretrained_student_weights": str(self._save_start())}
        return self._run("main_distillation", self.name, keys)

    def _fit_head(self, keys: dict[str, Any], spec: Any) -> str:
        """Fit the head of the teacher to the training data; return its checkpoint."""
        init = "pretrained" if self.config.distillation.teacher_architecture == "wav2vec2" else "random"
        epochs = min(HEAD_EPOCHS, self.config.training.epochs)
        own = {**keys, "student": spec, "student_init": init, "student_dropout": 0.1, "epoch": epochs}
        name = f"{self.name}_{HEAD_RUN}"
        return self._run("train_student_only", name, own)["best_checkpoint"]
