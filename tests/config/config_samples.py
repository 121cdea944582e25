"""What the config tests share: the guide's own JSON block and a short way to resolve keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharpstudent.config.load import validate_keys
from sharpstudent.config.resolve import resolve
from sharpstudent.config.run_config import RunConfig, Stage
from sharpstudent.tasks.deepfake.task import DeepfakeTask

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "configs" / "config_SBI.json"

# The block of the two-stage guide, character by character, comments and blank lines included.
GUIDE_BLOCK = """{
  "teacher_weights": "weights/FFc23.tar",
  "pretrained_student_weights": "output/pretrain_mobilevit_*/weights/10_0.9234_val.pth",
  
  "lr": 0.00005,  // Lower LR for distillation (half of pre-training LR)
  "temperature": 3.0,  // Controls soft label smoothness
  
  // Progressive Distillation (Recommended)
  "use_progressive_distillation": true,
  "alpha_start": 0.95,  // Start: 95% hard labels, 5% soft labels
  "alpha_end": 0.5,     // End: 50% hard labels, 50% soft labels
  "progressive_epochs": 20,  // Transition over 20 epochs
  
  "epoch": 100,
  "batch_size": 16,  // Will be reduced to 4 for distillation
  "image_size": 380
}
"""  # noqa: W293

WEIGHTS = {"teacher_weights": "t.tar", "pretrained_student_weights": "s.pth"}


def resolve_keys(stage: Stage, /, allow: tuple[str, ...] = (), **keys: Any) -> RunConfig:
    """Keys beside the two weights that stage 2 needs -> the resolved config."""
    return resolve(
        validate_keys(WEIGHTS | keys, DeepfakeTask),
        stage=stage,
        name="run",
        config_name="config",
        task=DeepfakeTask,
        allow=allow,
    )
