"""Verification of files of weights: each reader of `.pth`, `.safetensors`, `.onnx` or `.tflite` checks them here first.

A `.pth` of this program has a JSON beside it, with the sha256 of the file and `contents`, a digest of the archive's own
table of records (names, sizes, CRC32), which changes with every tensor:

    sha256 equal                                                 -> whole
    sha256 differs, `contents` equal                             -> the JSON is of this save: bits have changed, refused
    sha256 differs, `contents` differ, every record's CRC32 fits -> a whole file of a newer save: loaded, with a note
    sha256 differs, any CRC32 does not fit                       -> damaged, refused
    no JSON                                                      -> the CRC32 of every record is checked instead
    no JSON, and no archive (torch's format before 1.6)          -> loaded, with the note that it is not verified

A `.safetensors` of this program has the digest of its content, metadata included, among its metadata. A file that
`MANIFEST.json` in its folder lists, as `fetch_models.py` does, has its sha256 there. Any other file has neither: it is
loaded, with the note that it is not verified. Importing this module loads no torch.

`load_plain` loads a `.pth` without running code from it.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.io import compute_sha256

SAFETENSORS = ".safetensors"
MANIFEST_NAME = "MANIFEST.json"  # in a folder of fetched files: {"files": [{"file": NAME, "sha256": DIGEST}, ...]}
DIGEST_KEY = "content_sha256"  # of the metadata of a .safetensors file
OTHER_SUFFIXES = (".onnx", ".tflite")  # files without any checksum of their own
ALIGNMENT = 8  # bytes; the format requires the tensors to begin at a multiple of it
# What zipfile raises for damaged bytes; MemoryError for a size that a header claims.
BAD_ARCHIVE = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError, struct.error, zlib.error,
    lzma.LZMAError, OverflowError, MemoryError,
)  # fmt: skip

# Parts of torch's message about a pickle that needs more than tensors and plain containers.
_CODE = re.compile(
    r"(?i:unsupported global):? (?:GLOBAL )?(\S+)|unrecognized function (.+)|create new object .* got (.+)"
)
_CALLS = ("GLOBAL", "STACK_GLOBAL", "INST", "REDUCE", "NEWOBJ")  # opcodes of a pickle that import or call something
_OTHER_FORMATS = ("TorchScript archives", "legacy .tar format")


class DamagedCheckpointError(UserError):
    """A checkpoint that is damaged: another copy of it may still be good."""

    @classmethod
    def of(
        cls,
        path: Path,
        what: str,
        *,
        expected: str | None = None,
        got: str | None = None,
        remedy: str = "restore it from a copy, or use another checkpoint of the run (output/RUN/weights/)",
    ) -> DamagedCheckpointError:
        """Build the error about one file.

        Args:
            path: The file.
            what: What is wrong with it.
            expected: What would be right.
            got: What was found.
            remedy: What the user can do.

        Returns:
            The error, to be raised.
        """
        return cls(Problem(where=str(path), what=what, expected=expected, got=got, remedy=remedy))


def verify(path: Path) -> tuple[str, ...]:
    """Check a file of weights against its digest or its checksums.

    Args:
        path: A `.safetensors`, `.onnx` or `.tflite`, or any file that torch reads.

    Returns:
        Notes for the user: that the file is of a newer save than its JSON, or that it could not be verified.

    Raises:
        DamagedCheckpointError: If the file is not what was written.
    """
    if path.suffix == SAFETENSORS:
        return _verify_safetensors(path)
    return _verify_listed(path) if path.suffix in OTHER_SUFFIXES else verify_pth(path)


def path_of_json(path: Path) -> Path:
    """Return the path of the JSON that belongs to a checkpoint."""
    return path.with_name(path.name + ".json")


def read_record(path: Path) -> dict[str, Any] | None:
    """Read the JSON beside `path`; None where there is none that can be read, and the .pth is then read without it."""
    try:
        record = json.loads(path_of_json(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(record, dict) and {"sha256", "contents", "about"} <= set(record)
    return record if known else None


def compute_contents(file: Path | IO[bytes]) -> str | None:
    """Compute the digest of an archive's table (name, CRC32 and size of each record); None if it cannot be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            lines = [f"{i.filename} {i.CRC:08x} {i.file_size}" for i in archive.infolist()]
    except BAD_ARCHIVE:
        return None
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def has_whole_records(path: Path) -> bool:
    """Check whether every record of the archive matches its CRC32; torch does not do so."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except BAD_ARCHIVE:
        return False


def is_archive(path: Path) -> bool:
    """Return whether a file is the zip archive that torch writes, or was one before it was damaged."""
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            return True
    try:
        return zipfile.is_zipfile(path)
    except BAD_ARCHIVE:  # its end is that of an archive and is damaged
        return True


def verify_pth(path: Path) -> tuple[str, ...]:
    """Check a `.pth` by the rule of this module; arguments, results and errors are those of `verify`."""
    record = read_record(path)
    if record is None:
        if not is_archive(path):
            return _verify_listed(path)
        if not has_whole_records(path):
            raise DamagedCheckpointError.of(path, "is damaged: a checksum inside it does not fit")
        return ()
    found = compute_sha256(path)
    if found == record["sha256"]:
        return ()
    contents = compute_contents(path)
    if contents is None or contents == record["contents"] or not has_whole_records(path):
        raise DamagedCheckpointError.of(
            path,
            "is damaged: it is not the file that was saved",
            expected=f"sha256 {record['sha256']}, {record.get('bytes', '?')} bytes",
            got=f"sha256 {found}, {path.stat().st_size} bytes",
        )
    return (
        f"{path.name} is whole, but {path_of_json(path).name} belongs to another save (one was interrupted "
        "between the two files); the description inside the checkpoint is used",
    )


def seal_safetensors(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Put metadata into a file that has none, with the digest of its content.

    The library itself writes metadata in a random order. The format: 8 bytes little-endian length of the header, the
    header (JSON, padded with spaces), then the tensors, whose offsets count from the end of the header.
    https://github.com/huggingface/safetensors#format

    Args:
        content: A whole file, as `safetensors.torch.save` makes it.
        metadata: The metadata, strings by name.

    Returns:
        The whole file.
    """
    (length,) = struct.unpack("<Q", content[:8])
    table, data = json.loads(content[8 : 8 + length]), memoryview(content)[8 + length :]
    digest = _compute_digest({"__metadata__": dict(metadata), **table}, data)
    header = _to_json({"__metadata__": {**metadata, DIGEST_KEY: digest}, **table})
    header += b" " * (-len(header) % ALIGNMENT)
    return b"".join((struct.pack("<Q", len(header)), header, data))


def _verify_safetensors(path: Path) -> tuple[str, ...]:
    """Check a `.safetensors` against the digest among its metadata.

    A file whose header cannot be read has no digest; the library refuses it with its own message.
    """
    try:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        stated = header["__metadata__"].pop(DIGEST_KEY, None)
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, RecursionError):
        return _verify_listed(path)
    if stated is None:
        return _verify_listed(path)
    found = _compute_digest(header, memoryview(content)[8 + length :])
    if found != stated:
        raise DamagedCheckpointError.of(
            path,
            "is damaged: its content does not match the digest in it",
            expected=f"sha256 {stated}",
            got=f"sha256 {found}",
        )
    return ()


def _compute_digest(header: Mapping[str, Any], data: memoryview) -> str:
    """Compute the sha256 of the tensors and of a header without its digest, written as JSON in one fixed form."""
    digest = hashlib.sha256(_to_json(header))
    digest.update(data)
    return digest.hexdigest()


def _to_json(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()


def _verify_listed(path: Path) -> tuple[str, ...]:
    """Check a file against the sha256 that MANIFEST.json in its folder lists; a note where it lists none."""
    expected = _find_listed_digest(path)
    if expected is None:
        return (f"{path.name} is not verified: it has neither a digest nor checksums, so damage would not be noticed",)
    found = compute_sha256(path)
    if found != expected:
        raise DamagedCheckpointError.of(
            path,
            f"is not the file that {MANIFEST_NAME} beside it lists",
            expected=f"sha256 {expected}",
            got=f"sha256 {found}",
            remedy="delete it and fetch it again (weights/README.md)",
        )
    return ()


def _find_listed_digest(path: Path) -> str | None:
    """Return the sha256 of a file by MANIFEST.json in its folder; None where that lists none or cannot be read."""
    try:
        entries = json.loads(path.with_name(MANIFEST_NAME).read_text(encoding="utf-8"))["files"]
        digests = [entry["sha256"] for entry in entries if entry["file"] == path.name]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return str(digests[0]) if digests else None


def load_plain(path: Path) -> Any:
    """Load a file on the CPU with `torch.load(weights_only=True)`.

    The many errors of torch become two: the file asks for code and is refused, or it is damaged.
    """
    import torch  # here: what only asks for a digest is not to wait for torch

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
