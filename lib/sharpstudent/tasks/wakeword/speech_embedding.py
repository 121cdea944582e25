"""The teacher `speech_embedding`: Google's speech embedding on the waveform, frozen, with a small head that is trained.

Lin, Kilgour, Roblek, Sharifi 2020, "Training keyword spotters with limited and synthesized speech data". Two ONNX files
are run by onnxruntime: sound to mel bands, and 76 frames of 32 bands to 96 values. A window has EMBEDDINGS of these,
evenly spread, which LayerNorm, two linear layers and a ReLU turn into logits.

The ONNX part has no parameters here: a checkpoint holds the head, and the files are in weights/, checked by sha256.
What it gives for a window is kept by the bytes of the window, so that recurring windows cost nothing (kept_answers.py).

Legend: R rows, S samples of a window, F mel frames.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain
from sharpstudent.core.io import compute_sha256
from sharpstudent.tasks.wakeword.kept_answers import KeptAnswers
from sharpstudent.tasks.wakeword.networks import CLASSES
from sharpstudent.tasks.wakeword.recordings import PACKAGES

RATE = 16000  # samples a second that the files were made for
FRAMES, BANDS, SIZE = 76, 32, 96
EMBEDDINGS = 4  # of a window
HIDDEN_UNITS = 64
INT16 = 32768.0  # the files read sound in the range of 16-bit numbers
FOLDER = Path("weights")
FILES = {
    "speech_melspectrogram.onnx": "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f",
    "speech_embedding.onnx": "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f",
}
FETCH = "python fetch_models.py wakeword"


class SpeechEmbedder:
    """Runs the two files. It is opened at the first window, and copies of a model share it."""

    def __init__(self, folder: Path = FOLDER, cache: Path | None = None) -> None:
        """Remember where the files are; none is opened.

        Args:
            folder: Where they are.
            cache: The folder in which answers outlive the process; None to keep them in memory only.
        """
        self._folder, self._cache, self._sessions = folder, cache, list[Any]()
        self._kept = KeptAnswers(None if cache is None else cache / _name_teacher())

    def __deepcopy__(self, memo: dict[int, Any]) -> SpeechEmbedder:
        return self

    def __reduce__(self) -> tuple[type[SpeechEmbedder], tuple[Path, Path | None]]:
        return type(self), (self._folder, self._cache)

    def embed(self, waveforms: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the embeddings of windows; windows met before are not computed again.

        Args:
            waveforms: float32 (R, S) in -1..1.

        Returns:
            float32 (R, EMBEDDINGS * SIZE).

        Raises:
            UserError: Where a file is missing or is another one, and for windows that are too short.
        """
        return self._kept.answer(waveforms, self._compute)

    def _compute(self, waveforms: NDArray[np.float32]) -> NDArray[np.float32]:
        mel, embedding = self._open()
        bands = mel.run(None, {mel.get_inputs()[0].name: waveforms * np.float32(INT16)})[0]
        bands = bands.reshape(len(waveforms), -1, BANDS) / 10.0 + 2.0  # the scale on which the second file was trained
        starts = np.round(np.linspace(0, bands.shape[1] - FRAMES, EMBEDDINGS)).astype(int)
        if starts[-1] < 0:
            raise UserError.about(
                "data.duration", "is too short for the teacher speech_embedding",
                expected=f"{FRAMES} frames of 10 ms", got=f"{bands.shape[1]} frames", remedy="--set data.duration=1.0",
            )  # fmt: skip
        parts = np.stack([bands[:, start : start + FRAMES] for start in starts], axis=1)
        parts = parts.reshape(-1, FRAMES, BANDS, 1).astype(np.float32)
        found = embedding.run(None, {embedding.get_inputs()[0].name: parts})[0]
        return found.reshape(len(waveforms), EMBEDDINGS * SIZE)

    def _open(self) -> list[Any]:
        if not self._sessions:
            self._sessions = [_open_session(self._folder / name, digest) for name, digest in FILES.items()]
        return self._sessions


def _name_teacher() -> str:
    """Name the folder of its answers, by all that they depend on beside the window."""
    return hashlib.sha256(f"{sorted(FILES.values())} {EMBEDDINGS}".encode()).hexdigest()[:16]


def _open_session(path: Path, digest: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UserError.about(
            "teacher speech_embedding",
            "needs onnxruntime, which is not installed",
            remedy=f"pip install {PACKAGES}",
        ) from None
    try:
        found = f"sha256 {compute_sha256(path)}" if path.is_file() else "no such file"
    except OSError as error:
        found = explain(error)
    if found != f"sha256 {digest}":
        raise UserError.about(
            str(path), "is not the file of the teacher speech_embedding",
            expected=f"sha256 {digest}", got=found, remedy=FETCH,
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class SpeechEmbeddingClassifier(nn.Module):
    """`waveform` (R, S) -> `logits` (R, 2), and `embedding` (R, EMBEDDINGS * SIZE), normalised."""

    def __init__(self, dropout: float = 0.0, cache: Path | None = None) -> None:
        """Build the head with random weights; no file is opened.

        Args:
            dropout: Rate before the last layer.
            cache: As in `SpeechEmbedder`.
        """
        super().__init__()
        self.embedder = SpeechEmbedder(cache=cache)
        size = EMBEDDINGS * SIZE
        self.norm = nn.LayerNorm(size)
        self.hidden = nn.Sequential(nn.Linear(size, HIDDEN_UNITS), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(HIDDEN_UNITS, CLASSES)

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        """Compute `logits` and `embedding`."""
        found = torch.from_numpy(self.embedder.embed(check_waveform(waveform).float().cpu().numpy()))
        embedding = self.norm(found.to(waveform.device))
        return {"logits": self.head(self.hidden(embedding)), "embedding": embedding}


def check_waveform(waveform: Tensor) -> Tensor:
    """Return waveforms (R, S); raise UserError for a spectrogram in their place."""
    if waveform.ndim != 2:
        raise refuse_spectrogram(f"a tensor of shape {tuple(waveform.shape)}")
    return waveform


def refuse_spectrogram(got: str) -> UserError:
    """Build the error for a teacher that is given a spectrogram.

    Args:
        got: What it was given.
    """
    return UserError.about(
        "teacher",
        "Teacher NOT called with spectrogram inputs: it hears raw audio alone",
        expected="windows of sound (rows, samples)",
        got=got,
        remedy="--set data.features=audio (in the seed's own keys: use_precomputed_features_for_training False, "
        "fallback_to_audio True, return_raw_audio=True)",
    )
