"""Verification of files of weights: readers of `.pth`, `.safetensors`, `.onnx`, `.pte` and `.tflite` ask here first.

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

Before that, whatever cannot be weights at all is named for what it is: a web page, a Git LFS pointer, the first part of
a download, a packed archive. The name of a file tells nothing: people call safetensors `.bin`, and checkpoints `.tar`.

`find_file` finds the file in a folder as people have it. `load_plain` loads a `.pth` without running code from it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import pickletools
import re
import shlex
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.files import (
    PACKED,
    UNPACK,
    check_plain,
    explain,
    open_plain,
    parse_json,
    read_json,
    recognise_foreign,
)
from sharpstudent.core.io import compute_sha256
from sharpstudent.core.onnx_file import compare_seal
from sharpstudent.core.shipped import FOLDER, hint_shipped

if TYPE_CHECKING:
    from torch import Tensor

SAFETENSORS = ".safetensors"
MANIFEST_NAME = "MANIFEST.json"  # in a folder of fetched files: {"files": [{"file": NAME, "sha256": DIGEST}, ...]}
WEIGHTS = Path("weights")  # what is fetched lies here
_DTYPES = ("float32", "float16", "bfloat16", "float64")
DIGEST_KEY = "content_sha256"  # of the metadata of a .safetensors file
SEALED_SUFFIXES = (".onnx", ".pte")  # with a digest at their end, where this program wrote them
OTHER_SUFFIXES = (*SEALED_SUFFIXES, ".tflite")  # files of other programs, most without any checksum of their own
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
        remedy: str | None = None,
    ) -> DamagedCheckpointError:
        """Build the error about one file.

        Args:
            path: The file.
            what: What is wrong with it.
            expected: What would be right.
            got: What was found.
            remedy: What the user can do; None to get the file from where it came.

        Returns:
            The error, to be raised.
        """
        if remedy is None:
            remedy = "download it again, or restore it from a copy"
            if path_of_json(path).is_file():
                remedy = "restore it from a copy, or use another checkpoint of the run (output/RUN/weights/)"
        return cls(Problem(where=str(path), what=what, expected=expected, got=got, remedy=remedy))


def verify(path: Path) -> tuple[str, ...]:
    """Check a file of weights against its digest or its checksums.

    Args:
        path: A `.safetensors`, `.onnx`, `.pte` or `.tflite`, or any file that torch reads.

    Returns:
        Notes for the user: that the file is of a newer save than its JSON, or that it could not be verified.

    Raises:
        DamagedCheckpointError: If the file cannot be read, or is not what was written.
        UserError: If there is no such file, or for one that cannot hold weights, such as a web page.
    """
    _refuse_foreign(path)
    if path.suffix in OTHER_SUFFIXES:
        return _verify_sealed(path)
    return _verify_safetensors(path) if is_safetensors(path) else _verify_pth(path)


def is_safetensors(path: Path) -> bool:
    """Return whether a file is in the format of safetensors, whatever it is called."""
    start = _read_start(path, 9)
    return path.suffix == SAFETENSORS or (start[8:] == b"{" and not start.startswith(b"PK"))


# Which file of a folder is meant, as patterns: the first one that matches. A run of this program; Hugging Face, its
# cache, its shards; Lightning.
BEST = Path("weights") / "best_model.pth"
_IN_FOLDERS = (
    str(BEST),
    *("model.safetensors", "pytorch_model.bin", "snapshots/*/model.safetensors", "snapshots/*/pytorch_model.bin"),
    *("*.index.json", "*.ckpt", "checkpoints/*.ckpt", "version_*/checkpoints/*.ckpt"),
    *("lightning_logs/version_*/checkpoints/*.ckpt", "*.safetensors", "*.pth"),
)


def find_file(path: Path) -> Path:
    """Find the file of weights that a path means: the path itself, or the one in a folder.

    Args:
        path: A file, a run folder (its best model), or a folder of Hugging Face or Lightning.

    Returns:
        The path of the file.

    Raises:
        UserError: Where there is none, or where a folder holds several.
    """
    if path.is_file():
        return path
    if path.exists() and not path.is_dir():
        check_readable(path)  # says that it is a pipe or a device
    found = next((files for one in _IN_FOLDERS if (files := sorted(path.glob(one)))), []) if path.is_dir() else []
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(file.relative_to(path)) for file in found[:5]) + (", ..." if len(found) > 5 else "")
        what = f"is a folder with {len(found)} files of weights"
        raise UserError.about(str(path), what, got=names, remedy=f"name one of them: {found[0]}")
    raise UserError.about(
        where=str(path),
        what=f"is no run folder: it has no {BEST}" if path.is_dir() else "does not exist",
        expected="a checkpoint, a run folder (output/RUN), weights of any program (.pth, .tar, .ckpt, .bin, "
        ".safetensors), a folder of Hugging Face or Lightning with one file of them, or an export (.onnx, .xml, .pte)",
        remedy=f"check the path; the checkpoints of a run are in output/RUN/weights/; {hint_shipped(str(path))}",
    )


def _refuse_foreign(path: Path) -> None:
    """Raise UserError for a file that cannot hold weights: what it is, and where the weights may be had."""
    start = _read_start(path, 512)
    size, foreign = f"{path.stat().st_size:,} bytes", recognise_foreign(start)
    if foreign is not None:
        raise UserError.about(str(path), foreign[0], "a file of weights", size, foreign[1])
    if start.startswith(b"PK") and not _has_end(path):
        raise DamagedCheckpointError.of(path, "is cut off: the end of the archive is missing", got=size)
    if is_safetensors(path):
        _refuse_cut_off(path, start)


def _has_end(path: Path) -> bool:
    """Return whether the last part of a zip archive is there; true for a damaged one, which gets its own message."""
    try:
        return zipfile.is_zipfile(path)
    except BAD_ARCHIVE:
        return True


def _refuse_cut_off(path: Path, start: bytes) -> None:
    """Raise UserError for a `.safetensors` that is shorter than its header says."""
    (length,) = struct.unpack("<Q", start[:8].ljust(8, b"\0"))
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            table = parse_json(file.read(min(length, size) + 8)[8:])
        ends = [one["data_offsets"][1] for name, one in table.items() if name != "__metadata__"]
        need = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        need = 8 + length
    if need > size:
        raise DamagedCheckpointError.of(path, "is cut off", expected=f"{need:,} bytes", got=f"{size:,} bytes")


def check_readable(path: Path) -> None:
    """Raise UserError unless a file of weights is there, plain, readable and not empty."""
    try:
        size = check_plain(path)
    except FileNotFoundError:
        remedy = "check the path; the checkpoints of a run are in output/RUN/weights/"
        raise UserError.about(str(path), "does not exist", remedy=remedy) from None
    except OSError as error:
        raise DamagedCheckpointError.of(path, f"cannot be read: it {_to_phrase(explain(error))}") from None
    if size == 0:
        raise DamagedCheckpointError.of(path, "is empty (0 bytes)")


def _read_start(path: Path, count: int) -> bytes:
    """Read the first bytes of a file of weights; raise UserError where `check_readable` would."""
    check_readable(path)
    with open_plain(path) as file:
        return file.read(count)


def _to_phrase(reason: str) -> str:
    """Return a reason as what follows `it`; the system's own words are no sentence."""
    return reason if reason.startswith(("is ", "has ")) else f"gives an error ({reason})"


def path_of_json(path: Path) -> Path:
    """Return the path of the JSON that belongs to a checkpoint."""
    return path.with_name(path.name + ".json")


def read_record(path: Path) -> dict[str, Any] | None:
    """Read the JSON beside `path`; None where there is none that can be read, and the .pth is then read without it."""
    try:
        record = read_json(path_of_json(path))
    except (OSError, ValueError):
        return None
    known = isinstance(record, dict) and {"sha256", "contents", "about"} <= set(record)
    return record if known and isinstance(record["about"], dict) else None


def read_about(path: Path) -> dict[str, Any] | None:
    """Read the description of a checkpoint without its tensors; None where there is no JSON beside it."""
    record = read_record(path)
    return None if record is None else record["about"]


def read_sha256(path: Path) -> str | None:
    """Read the sha256 that the JSON beside a checkpoint gives; None where there is no JSON."""
    record = read_record(path)
    return None if record is None else record["sha256"]


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
    return _read_start(path, 2) == b"PK" or _has_end(path)


def _verify_pth(path: Path) -> tuple[str, ...]:
    """Check a `.pth` by the rule of this module; arguments, results and errors are those of `verify`."""
    if _claims_more(path, path.stat().st_size):
        raise DamagedCheckpointError.of(path, "is damaged: its records claim more bytes than it has")
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


def _verify_sealed(path: Path) -> tuple[str, ...]:
    """Check an `.onnx` or `.pte` against the digest at its end, and a file without one against the list beside it."""
    seal = compare_seal(path) if path.suffix in SEALED_SUFFIXES else None
    if seal is None:
        return _verify_listed(path)
    stated, found = seal
    if stated != found:
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
            f"is not the file that {MANIFEST_NAME} lists for it",
            expected=f"sha256 {expected}",
            got=f"sha256 {found}",
            remedy="delete it and fetch it again (weights/README.md)",
        )
    return ()


def _find_listed_digest(path: Path) -> str | None:
    """Return the sha256 of a file by MANIFEST.json in its folder, or in weights/ by the package's; None without one."""
    manifest = path.with_name(MANIFEST_NAME)
    if path.parent.name == WEIGHTS.name and not manifest.exists():
        manifest = FOLDER / MANIFEST_NAME
    try:
        entries = read_json(manifest)["files"]
        digests = [entry["sha256"] for entry in entries if entry["file"] == path.name]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(digests[0]) if digests else None


def load_plain(path: Path) -> Any:
    """Load a file on the CPU with `torch.load(weights_only=True)`.

    The many errors of torch become two: the file asks for code and is refused, or it is damaged.
    """
    import torch  # here: what only asks for a digest is not to wait for torch

    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_list_plain_types()):
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # errors follow where needed
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (hostile bytes can raise any exception; each becomes a message)
        raise _explain(path, str(error) or type(error).__name__) from None  # torch's text advises weights_only=False
    check_tensors(path, found)
    return found


def check_tensors(path: Path, found: Any) -> None:
    """Check that all tensors of a file are plain ones.

    A sparse or quantised tensor, one on the meta device, or one whose strides repeat a single number 10^12 times has a
    size that no part of the file backs; most operations on it fail, or fill the memory.

    Args:
        path: The file, for the error.
        found: Its content: tensors, and containers of them at any depth.

    Raises:
        UserError: If it holds another kind of tensor; nothing of it has been computed with.
    """
    import torch

    waiting, seen = [("", found)], set[int]()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            reason = _find_odd(value)
            if reason is not None:
                raise UserError.about(
                    str(path),
                    "holds a tensor of a kind that no weights have",
                    expected=f"dense tensors of {', '.join(_DTYPES)}, integers or bools, all values in the file",
                    got=f"{name or 'the tensor'}: {reason}",
                    remedy="save it as plain weights: {name: tensor.to_dense().float().contiguous() for ...}",
                )
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:  # an object may be in it many times
            seen.add(id(value))
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [(f"{name}.{key}" if name else str(key), inner) for key, inner in pairs]


def _find_odd(tensor: Tensor) -> str | None:
    """Return what makes a tensor one that no weights are; None for plain ones."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if str(tensor.layout) != "torch.strided":
        return f"layout {tensor.layout}"
    if tensor.is_quantized or (dtype not in _DTYPES and not dtype.startswith(("int", "uint")) and dtype != "bool"):
        return dtype
    if tensor.device.type != "cpu":
        return f"on the device {tensor.device}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"{tensor.numel():,} values that repeat {tensor.untyped_storage().nbytes():,} bytes"
    return None


def _claims_more(path: Path, size: int) -> bool:
    """Return whether the records of an archive are packed: torch writes none so, and a few bytes may unpack to any."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(record.file_size for record in archive.infolist()) > size
    except BAD_ARCHIVE:
        return False  # it is no archive, or a damaged one, which torch refuses


def _list_plain_types() -> list[Any]:
    """List the types of plain data that published checkpoints hold beside their tensors; none of them runs anything."""
    import numpy as np
    from numpy._core import multiarray

    makers = [(getattr(multiarray, name), name) for name in ("scalar", "_reconstruct")]
    parts = [(maker, f"numpy.{core}.multiarray.{name}") for maker, name in makers for core in ("core", "_core")]
    dtypes = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?USV"}
    return [argparse.Namespace, np.dtype, np.ndarray, *dtypes, *parts]


def _explain(path: Path, text: str) -> UserError:
    reason = _first_words(text)
    if is_archive(path) and not has_whole_records(path):
        # A changed bit in the pickle can look like the name of a function; the checksum shows that it is damage.
        return DamagedCheckpointError.of(path, "is damaged: a checksum does not fit; nothing in it was run", got=reason)
    packed = _list_packed(path)
    if packed:
        return UserError.about(str(path), PACKED, got=packed, remedy=UNPACK)
    code = _CODE.search(text)
    if code is None and not _is_other_pickle(path, text):
        return DamagedCheckpointError.of(path, "cannot be read: it is damaged, cut off, or no checkpoint", got=reason)
    name = next((group for group in code.groups() if group), None) if code else None
    return UserError.about(
        str(path),
        "was refused: it has more than tensors and plain containers; nothing in it was run",
        got=reason if name is None else f"it needs {name}",
        remedy=f"take its tensors alone: python -m sharpstudent.models.weight_files {shlex.quote(str(path))} "
        f"{shlex.quote(str(path.with_suffix(SAFETENSORS)))}",
    )


def _list_packed(path: Path) -> str:
    """List files of a zip archive that holds none of torch's records; "" for any other file."""
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return "" if any(name.endswith(("data.pkl", "/version")) for name in names) else ", ".join(names[:3])


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
