"""Loads a .pth without running code from it, and turns the errors of torch into messages for the user."""

from __future__ import annotations

import pickletools
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from sharpstudent.core.digests import DamagedCheckpointError, has_whole_records, is_archive
from sharpstudent.core.errors import UserError

# Parts of torch's message about a pickle that needs more than tensors and plain containers.
_CODE = re.compile(
    r"(?i:unsupported global):? (?:GLOBAL )?(\S+)|unrecognized function (.+)|create new object .* got (.+)"
)
_CALLS = ("GLOBAL", "STACK_GLOBAL", "INST", "REDUCE", "NEWOBJ")  # opcodes of a pickle that import or call something
_OTHER_FORMATS = ("TorchScript archives", "legacy .tar format")


def load_plain(path: Path) -> Any:
    """Load a file on the CPU with `torch.load(weights_only=True)`.

    The many errors of torch become two: the file asks for code and is refused, or it is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # errors follow where needed
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (hostile bytes can raise any exception; each becomes a message)
        raise _explain(path, str(error) or type(error).__name__) from None  # torch's text advises weights_only=False


def _explain(path: Path, text: str) -> UserError:
    reason = _first_words(text)
    if is_archive(path) and not has_whole_records(path):
        # A changed bit in the pickle can look like the name of a function; the checksum shows that it is damage.
        return DamagedCheckpointError.of(path, "is damaged: a checksum does not fit; nothing in it was run", got=reason)
    code = _CODE.search(text)
    if code is None and not _is_other_pickle(path, text):
        return DamagedCheckpointError.of(path, "cannot be read: it is damaged, cut off, or no checkpoint", got=reason)
    name = next((group for group in code.groups() if group), None) if code else None
    return UserError.about(
        str(path),
        "was refused: it has more than tensors and plain containers; nothing in it was run",
        got=reason if name is None else f"it needs {name}",
        remedy="ask its author for a plain state_dict, or convert it where you trust it: "
        "torch.save(model.state_dict(), FILE)",
    )


def _is_other_pickle(path: Path, text: str) -> bool:
    """Return whether a file is TorchScript, torch's legacy .tar format, or a pickle that imports or calls something."""
    if any(words in text for words in _OTHER_FORMATS):
        return True
    try:
        with open(path, "rb") as file:
            return any(opcode.name in _CALLS for opcode, _, _ in pickletools.genops(file))  # reads, never runs
    except (ValueError, OSError, OverflowError):
        return False


def _first_words(text: str) -> str:
    """Return the part of torch's message that says what happened."""
    lines = [line.strip() for line in text.rpartition("WeightsUnpickler error:")[2].splitlines() if line.strip()]
    return (lines or ["no reason given"])[0][:200]
