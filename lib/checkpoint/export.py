"""The best model once more as `best_model.safetensors`: tensors without a pickle, for programs other than this one.

It is made from `best_model.pth` alone and its bytes depend on nothing else, so that whether it belongs to it is seen by
making it again. Its metadata are strings: the description of the checkpoint, `epoch`, `value` and `metric` of the
selection, and `source_sha256`, the sha256 of the .pth.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from lib.checkpoint.store import load_checkpoint
from lib.errors import Problem, UserError
from lib.files import compute_sha256, write_bytes_atomically

SUFFIX = ".safetensors"
_ALIGNMENT = 8  # bytes; the format wants the tensors to begin at a multiple


def export_model(checkpoint: Path, selection: Mapping[str, object]) -> bool:
    """Write the tensors of `model` in `checkpoint` beside it, atomically; False where that very file is there already.

    selection: what the metadata say beside the checkpoint's own description. Raises UserError for a checkpoint that is
    damaged or holds no `model`, and where the disk refuses.
    """
    target = checkpoint.with_suffix(SUFFIX)
    content = render_model(checkpoint, selection)
    if target.is_file() and target.stat().st_size == len(content) and target.read_bytes() == content:
        return False
    write_bytes_atomically(target, content)
    return True


def render_model(checkpoint: Path, selection: Mapping[str, object]) -> bytes:
    """The whole file as bytes."""
    loaded = load_checkpoint(checkpoint)
    model = loaded.tensors.get("model")
    if not isinstance(model, Mapping):
        raise UserError(
            Problem(
                str(checkpoint), "holds no `model`", got=f"keys {list(loaded.tensors)[:3]}", remedy="train the run anew"
            )
        )
    about = {**loaded.about, **selection, "source": checkpoint.name, "source_sha256": compute_sha256(checkpoint)}
    # Cloned: the format refuses tensors that share memory, as tied weights do.
    tensors = {str(name): value.contiguous().clone() for name, value in model.items() if isinstance(value, Tensor)}
    return _add_metadata(save(tensors), {"format": "pt", **{name: _to_text(value) for name, value in about.items()}})


def _add_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Put metadata into a file that has none: the library itself writes them in a random order.

    The format: 8 bytes little-endian length of the header, the header (JSON, padded with spaces), then the tensors,
    whose offsets count from the end of the header. https://github.com/huggingface/safetensors#format
    """
    (length,) = struct.unpack("<Q", content[:8])
    table = json.loads(content[8 : 8 + length])
    header = json.dumps({"__metadata__": metadata, **table}, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _to_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
