"""Keeps what a frozen backbone computes of a picture in a folder, so that each picture is encoded once.

An entry is named by the digest of the backbone's weights and of the very pixels, so that an augmented picture, another
size or other weights never find it. Features are kept, and used from the first time on, as float16.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sharpstudent.core.files import read_plain
from sharpstudent.core.io import make_folder, write_bytes_atomically
from sharpstudent.models.forward import run_frozen
from sharpstudent.models.weights import compute_weights_hash

DIGEST_BYTES = 16


class FeatureCache:
    """A folder of features.

    Attributes:
        is_on: Whether features are kept and read; else the backbone computes each time.
    """

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is made when the first entry is written."""
        self._folder = folder
        self._weights = ""
        self.is_on = False

    def __call__(self, backbone: nn.Module, image: Tensor) -> Tensor:
        """Compute `backbone(image)`, or read it where it was computed before.

        Args:
            backbone: A frozen network; its weights must not change from one call to the next.
            image: Pictures (I, 3, S, S) float32.

        Returns:
            float32 (I, C, h, w), rounded to float16.
        """
        if not self.is_on or type(image) is not Tensor or image.device.type == "meta" or torch.jit.is_tracing():
            return run_frozen(backbone, image)
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return backbone(image)
        self._weights = self._weights or compute_weights_hash(backbone)[:16]
        pixels = image.detach().cpu().contiguous().numpy()
        paths = [self._name(one) for one in pixels]
        found = [_read(path) for path in paths]
        missing = [index for index, one in enumerate(found) if one is None]
        if missing:
            computed = backbone(image[missing]).half().cpu()
            for index, features in zip(missing, computed, strict=True):
                found[index] = features
                _write(paths[index], features.numpy())
        return torch.stack([one for one in found if one is not None]).to(image.device).float()

    def _name(self, pixels: np.ndarray) -> Path:
        digest = _compute_digest(pixels.tobytes()).hex()
        return self._folder / self._weights / digest[:2] / digest


def _read(path: Path) -> Tensor | None:
    """Read an entry; None where there is none, or where its digest does not fit: it is computed again."""
    try:
        content = read_plain(path)
    except OSError:
        return None
    digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if len(body) < 12 or digest != _compute_digest(body):
        return None
    shape = np.frombuffer(body[:12], np.int32).tolist()
    return torch.from_numpy(np.frombuffer(body, np.float16, offset=12).reshape(shape).copy())


def _write(path: Path, features: np.ndarray) -> None:
    """Write an entry: the digest of what follows, three int32 of its shape, then its values as float16."""
    body = np.array(features.shape, np.int32).tobytes() + features.tobytes()
    make_folder(path.parent)
    write_bytes_atomically(path, _compute_digest(body) + body)


def _compute_digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]  # processors have instructions for it
