"""Trains what a YAML config of the wake-word guide says: `python -m src.run config.yaml --data data/splits`.

The page of `src.ui.app` starts it, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path
from sharpstudent.core.errors import exit_codes
from torch.utils.data import DataLoader

from src.config.defaults import WakewordConfig
from src.data.dataset import WakewordDataset
from src.models.factory import create_model
from src.training.checkpoint_manager import CheckpointManager
from src.training.distillation_trainer import DistillationTrainer
from src.training.trainer import Trainer


def build_trainer(config: WakewordConfig, data: Path, checkpoints: Path, device: str) -> Trainer:
    """Build model, data sets and trainer of a config; a `DistillationTrainer` where distillation is enabled.

    Args:
        config: The config.
        data: The folder with train.json and val.json.
        checkpoints: Where runs go.
        device: cpu or cuda.
    """
    model = create_model(config.model.architecture, config.model.num_classes, config.data.n_mels, config.model.dropout)
    loaders = [
        DataLoader(
            WakewordDataset(
                data / f"{split}.json", config.data.sample_rate, config.data.audio_duration, augment=split == "train",
                return_raw_audio=not config.data.use_precomputed_features_for_training, n_mels=config.data.n_mels,
            ),
            batch_size=config.training.batch_size,
            shuffle=split == "train",
        )
        for split in ("train", "val")
    ]  # fmt: skip
    kind = DistillationTrainer if config.distillation.enabled else Trainer
    print(f"trainer: {kind.__name__}", flush=True)
    return kind(model, *loaders, config, CheckpointManager(checkpoints), device)


def main() -> None:
    """Train the config that the command line names."""
    parser = Parser("-m src.run", str(__doc__), more=EXIT_CODES, examples=["-m src.run config.yaml --data data/splits"])
    parser.add_argument("config", type=read_path, help="a YAML file")
    parser.add_argument("--data", type=read_path, default=Path("data/splits"), help="train.json and val.json")
    parser.add_argument("--checkpoints", type=read_path, default=Path("checkpoints"), help="where runs go")
    given = parser.read(sys.argv[1:])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = build_trainer(WakewordConfig.load(given.config), given.data, given.checkpoints, device).train()
    print(f"Best F1 Score: {results['best_f1']:.4f}\nBest Model: {results['best_checkpoint']}")
    if "int8" in results:
        print(f"int8 file: {results['int8'] or 'refused, see above'}")


if __name__ == "__main__":
    with exit_codes():
        main()
