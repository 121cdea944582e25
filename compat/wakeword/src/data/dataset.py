"""`WakewordDataset` of the wake-word guide: a list of recordings as windows for a DataLoader."""

from __future__ import annotations

from pathlib import Path

import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.random import build_generator
from sharpstudent.tasks.wakeword.clip_layouts import NAMES, find_clips
from sharpstudent.tasks.wakeword.clips import HARD, choose_word
from sharpstudent.tasks.wakeword.section import WakewordSection
from sharpstudent.tasks.wakeword.windows import open_windows
from torch import Tensor
from torch.utils.data import Dataset


class WakewordDataset(Dataset[tuple[Tensor, int, float]]):
    """Windows of one list, each as (input, label, is_hard_negative).

    The input is the waveform (S,) with `return_raw_audio`, which a teacher needs, else the spectrogram (1, M, T).
    """

    def __init__(
        self,
        manifest_path: str | Path,
        sample_rate: int = 16000,
        audio_duration: float = 1.5,
        augment: bool = False,
        return_raw_audio: bool = False,
        device: str = "cpu",
        n_mels: int = 64,
        word: str = "",
    ) -> None:
        """Open the list; recordings are read when they are asked for.

        Args:
            manifest_path: `splits/train.json` or another list of the same folder.
            sample_rate: Samples a second.
            audio_duration: Length of a window [s].
            augment: Whether windows are augmented anew at every visit.
            return_raw_audio: Whether the input is the waveform.
            device: Where inputs are put.
            n_mels: Bands of the spectrogram.
            word: The wake word, where the lists name words.

        Raises:
            UserError: For a list that is not there or cannot be read.
        """
        self.manifest_path, self.augment, self.return_raw_audio = Path(manifest_path), augment, return_raw_audio
        if not self.manifest_path.is_file():
            raise UserError.about(str(manifest_path), "is not there", expected="a list such as data/splits/train.json")
        folder = self.manifest_path.parent
        self.data_root = folder.parent if folder.name == "splits" else folder
        self.device = device
        self.section = WakewordSection(
            data_root=str(self.data_root), layout="splits", sample_rate=sample_rate, duration=audio_duration,
            n_mels=n_mels, word=word,
        )  # fmt: skip
        split = NAMES.get(self.manifest_path.stem, self.manifest_path.stem)
        self._windows = open_windows(choose_word(find_clips(self.section), word), split, self.section)
        self._windows.is_training = augment
        self._visits = [0] * len(self._windows)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> tuple[Tensor, int, float]:
        self._visits[index] += 1
        sample = self._windows.make(index, build_generator(self._windows.seed, self._visits[index], index))
        chosen = sample.inputs["waveform" if self.return_raw_audio else "audio_features"][0]
        is_hard = float(self._windows.specs[index].clip.category == HARD)
        return torch.from_numpy(chosen).to(self.device), int(sample.targets["label"][0]), is_hard
