"""`WakewordConfig` of the wake-word guide: its sections, defaults and YAML, each key read and none ignored."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_text
from sharpstudent.core.io import write_text_atomically

SCHEDULERS = ("cosine", "constant", "linear")
ARCHITECTURES = ("mobilenetv3", "resnet18", "tiny_conv", "lstm", "gru", "tcn")
TEACHERS = ("wav2vec2", "speech_embedding")
BACKENDS = ("qnnpack", "fbgemm", "x86")  # of int8: weights of 7 bits are computed alike on Arm and on x86
LOWEST_LR = 0.01  # of the first learning rate, at the end of a cosine


@dataclass
class DistillationConfig:
    """What the teacher adds. `alpha` is the TEACHER's share of the loss, 0..1."""

    enabled: bool = False
    teacher_model_path: str = ""
    teacher_architecture: str = "wav2vec2"
    temperature: float = 2.0
    alpha: float = 0.5


@dataclass
class ModelConfig:
    """The student."""

    architecture: str = "resnet18"
    num_classes: int = 2
    pretrained: bool = False
    dropout: float = 0.3


@dataclass
class TrainingConfig:
    """How long it trains, on batches of which size."""

    batch_size: int = 32
    epochs: int = 80
    learning_rate: float = 0.001
    early_stopping_patience: int = 15
    num_workers: int = 0
    hard_negative_weight: float = 1.0


@dataclass
class DataConfig:
    """Windows of sound, and the spectrogram that students read."""

    sample_rate: int = 16000
    audio_duration: float = 1.5
    n_mels: int = 64
    n_fft: int = 400
    hop_length: int = 160
    feature_type: str = "mel"
    use_precomputed_features_for_training: bool = False
    fallback_to_audio: bool = True


@dataclass
class AugmentationConfig:
    """Shares of the training windows with background, and with a room."""

    background_noise_prob: float = 0.5
    rir_prob: float = 0.3


@dataclass
class OptimizerConfig:
    """The optimiser. `mixed_precision` is bf16 on a GPU that has it; on a CPU everything stays in fp32."""

    optimizer: str = "adamw"
    weight_decay: float = 0.01
    scheduler: str = "cosine"
    gradient_clip: float = 1.0
    mixed_precision: bool = True


@dataclass
class QATConfig:
    """Whether the student is fine-tuned for int8 after training, and written; one file serves all of BACKENDS."""

    enabled: bool = False
    backend: str = "qnnpack"


@dataclass
class WakewordConfig:
    """All sections."""

    config_name: str = "wakeword"
    description: str = ""
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    qat: QATConfig = field(default_factory=QATConfig)

    @classmethod
    def load(cls, path: str | Path) -> WakewordConfig:
        """Read a YAML file.

        Raises:
            UserError: For a file that cannot be read, an unknown key, and a value of another type.
        """
        try:
            read = yaml.safe_load(read_text(Path(path)))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError.about(str(path), f"cannot be read ({explain(error)})", remedy="write it as YAML") from None
        return _fill(cls, read if read is not None else {}, str(path))

    def save(self, path: str | Path) -> None:
        """Write all keys as YAML."""
        write_text_atomically(Path(path), yaml.safe_dump(asdict(self), sort_keys=False))

    def check(self) -> None:
        """Raise UserError for values that cannot be trained with, each with its remedy."""
        _require(
            "distillation.alpha", 0.0 <= self.distillation.alpha <= 1.0, self.distillation.alpha, "0.0 to 1.0", 0.5
        )
        _require("distillation.temperature", self.distillation.temperature >= 0.01, self.distillation.temperature,
                 "1.0 to 10.0", 2.0)  # fmt: skip
        _require("model.num_classes", self.model.num_classes == 2, self.model.num_classes, "2: the word, and not", 2)
        _require("model.architecture", self.model.architecture in ARCHITECTURES, self.model.architecture,
                 ", ".join(ARCHITECTURES), "mobilenetv3")  # fmt: skip
        _require("model.pretrained", not self.model.pretrained, self.model.pretrained,
                 "false: there are no weights for spectrograms", "false")  # fmt: skip
        _require("data.feature_type", self.data.feature_type == "mel", self.data.feature_type, "mel", "mel")
        _require("data.n_fft", self.data.n_fft == 400, self.data.n_fft, "400", 400)
        _require("data.hop_length", self.data.hop_length == 160, self.data.hop_length, "160", 160)
        _require("optimizer.scheduler", self.optimizer.scheduler in SCHEDULERS, self.optimizer.scheduler,
                 ", ".join(SCHEDULERS), "cosine")  # fmt: skip
        _require("distillation.teacher_architecture", self.distillation.teacher_architecture in TEACHERS,
                 self.distillation.teacher_architecture, ", ".join(TEACHERS), "wav2vec2")  # fmt: skip
        _require("qat.backend", self.qat.backend in BACKENDS, self.qat.backend, ", ".join(BACKENDS), "qnnpack")
        uses_files = self.data.use_precomputed_features_for_training
        _require("data.fallback_to_audio", uses_files or self.data.fallback_to_audio, self.data.fallback_to_audio,
                 "true, unless use_precomputed_features_for_training is", "true")  # fmt: skip

    def to_keys(self, data_root: Path) -> dict[str, Any]:
        """Write the keys of a config of sharpstudent: those of both stages but for teachers.

        Args:
            data_root: The folder whose `splits/` list the recordings.
        """
        self.check()
        first, model, own = self.training.learning_rate, self.model, self.optimizer
        rates = {"cosine": {"kind": "cosine", "start": first, "end": LOWEST_LR * first}, "constant": first}
        rates["linear"] = {"kind": "linear", "start": first, "end": LOWEST_LR * first}
        batch = {"batch_size": self.training.batch_size, "lr": rates[own.scheduler]}
        return {
            "task": "wakeword",
            "data": {
                "data_root": str(data_root),
                "sample_rate": self.data.sample_rate,
                "duration": self.data.audio_duration,
                "n_mels": self.data.n_mels,
                "features": "precomputed" if self.data.use_precomputed_features_for_training else "audio",
                "background_noise_prob": self.augmentation.background_noise_prob,
                "rir_prob": self.augmentation.rir_prob,
                "hard_negative_weight": self.training.hard_negative_weight,
                "views": 2,
            },
            "student": model.architecture,
            "student_init": "random",
            "student_dropout": model.dropout,
            "epoch": self.training.epochs,
            "patience": self.training.early_stopping_patience,
            "num_workers": self.training.num_workers,
            "optimizer": own.optimizer,
            "weight_decay": own.weight_decay,
            "clip_norm": own.gradient_clip,
            "rho": 0.0,
            **batch,
            "stage1": batch,
            "stage2": {**batch, "terms": self.list_terms()},
        }

    def list_terms(self) -> list[dict[str, Any]]:
        """Write the loss of the guide: (1 - alpha) cross-entropy + alpha T² KL(teacher || student)."""
        alpha, temperature = self.distillation.alpha, self.distillation.temperature
        found = [{"term": "hard", "weight": 1.0 - alpha}, {"term": "kd", "weight": alpha, "temperature": temperature}]
        return [term for term in found if term["weight"] > 0.0]


def _require(key: str, holds: bool, got: Any, expected: str, remedy: Any) -> None:
    if not holds:
        raise UserError.about(key, "cannot be trained with", expected=expected, got=str(got), remedy=f"{key}: {remedy}")


def _fill(kind: Any, read: Any, where: str) -> Any:
    """Build a dataclass from a mapping of its fields, sections within sections."""
    names = {one.name: one for one in fields(kind)}
    if not isinstance(read, dict):
        raise UserError.about(
            where, "is no group of keys", expected=", ".join(names), got=json.dumps(read, default=str)
        )
    unknown = sorted(str(name) for name in read if name not in names)
    if unknown:
        raise UserError.about(
            where, f"has an unknown key: {unknown[0]}", expected=", ".join(names), remedy="take it out"
        )
    default = kind()
    return kind(
        **{name: _read_value(getattr(default, name), value, f"{where}: {name}") for name, value in read.items()}
    )


def _read_value(default: Any, value: Any, where: str) -> Any:
    if hasattr(default, "__dataclass_fields__"):
        return _fill(type(default), value, where)
    wanted = type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise UserError.about(where, "has a value of another type", expected=wanted.__name__, got=repr(value))
    return value
