"""Reading a .pth as the zip archive that it is: its table of records, its checksums, and a load that runs no code."""

from __future__ import annotations

import hashlib
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import torch

from sharpstudent.core.errors import Problem, UserError

_BAD_ARCHIVE = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError, struct.error, zlib.error
)  # fmt: skip

# How torch words a pickle that needs more than tensors and plain containers.
_CODE = re.compile(
    r"(?i:unsupported global):? (?:GLOBAL )?(\S+)|unrecognized function (.+)|create new object .* got (.+)"
)
_CALLS = ("GLOBAL", "STACK_GLOBAL", "INST", "REDUCE", "NEWOBJ")
_OTHER_FORMATS = ("TorchScript archives", "legacy .tar format")


class DamagedCheckpointError(UserError):
    """A checkpoint that is damaged: another copy of it may still be good."""

    @classmethod
    def of(
        cls, path: Path, what: str, *, expected: str | None = None, got: str | None = None
    ) -> DamagedCheckpointError:
        """The error about one file.

        Args:
            path: The file.
            what: What is wrong with it.
            expected: What would be right.
            got: What was found.

        Returns:
            The error, to be raised.
        """
        remedy = "restore it from a copy, or use another checkpoint of the run (output/RUN/weights/)"
        return cls(Problem(where=str(path), what=what, expected=expected, got=got, remedy=remedy))


def compute_contents(file: Path | IO[bytes]) -> str | None:
    """Digest of the table of an archive (name, CRC32 and size of each record); None if it cannot be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            lines = [f"{i.filename} {i.CRC:08x} {i.file_size}" for i in archive.infolist()]
    except _BAD_ARCHIVE:
        return None
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def has_whole_records(path: Path) -> bool:
    """Whether every record of the archive matches its CRC32, which torch does not check."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except _BAD_ARCHIVE:
        return False


def load_plain(path: Path) -> Any:
    """Load a file on the CPU with `torch.load(weights_only=True)`.

    The many errors of torch become two: the file asks for code and is refused, or it is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # an error follows where it matters
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (a reader of hostile bytes raises anything; each becomes one message)
        raise _explain(path, str(error) or type(error).__name__) from None  # torch's text advises weights_only=False


def _explain(path: Path, text: str) -> UserError:
    reason = _first_words(text)
    if zipfile.is_zipfile(path) and not has_whole_records(path):
        # A changed bit in the pickle looks like a strange name; the checksum knows better.
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
    """Whether a file is TorchScript, in the oldest format of torch, or a pickle that calls something."""
    if any(words in text for words in _OTHER_FORMATS):
        return True
    try:
        with open(path, "rb") as file:
            return any(opcode.name in _CALLS for opcode, _, _ in pickletools.genops(file))  # reads, never runs
    except (ValueError, OSError, OverflowError):
        return False


def _first_words(text: str) -> str:
    """The part of the message of torch that says what happened."""
    lines = [line.strip() for line in text.rpartition("WeightsUnpickler error:")[2].splitlines() if line.strip()]
    return (lines or ["no reason given"])[0][:200]
