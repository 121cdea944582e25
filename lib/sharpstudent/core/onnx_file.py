"""What exported files say of themselves, read without their runtimes; the digest at the end of a file.

An ONNX file is a protocol buffer. Its metadata are entries of field 14 of the outermost message, each with a key (field
1) and a value (field 2). Messages may be joined by writing one behind the other, so a file is sealed by an entry at its
end: the sha256 of all bytes before it. An ExecuTorch program reads only as many bytes as its header says, so it has
behind them its metadata as JSON, their length (8 bytes, the lowest first), and the same seal. An `.xml` of OpenVINO
has its metadata as the value of an element.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

from sharpstudent.core.files import open_plain, parse_json, read_plain

DIGEST_KEY = "content_sha256"
MOST_METADATA = 2**24  # bytes of one entry; a longer one is not read
MOST_GRAPH = 2**28  # bytes of an `.xml`, which holds no weights
METADATA_FIELD, BYTES, DIGITS = 14, 2, 64
_STATED = re.compile(rb'<sharpstudent>\s*<metadata value="([^"]*)"\s*/>')  # of an `.xml`
SKIPPED = {0: 0, 1: 8, 5: 4}  # wire type -> bytes of a value of fixed length; 0 is a number that ends by itself


def read_onnx_metadata(path: Path) -> dict[str, str]:
    """Read the metadata; everything else in the file is passed over unread.

    Args:
        path: The file.

    Returns:
        The texts by key; the last of equal keys counts, as for onnxruntime.

    Raises:
        OSError: If the file cannot be read.
        ValueError: For a file that is no protocol buffer, or is cut off.
    """
    found: dict[str, str] = {}
    with open_plain(path) as file:
        size = path.stat().st_size
        while file.tell() < size:
            field, kind = divmod(_read_number(file), 8)
            if kind != BYTES:
                _skip(file, kind)
                continue
            length = _read_number(file)
            if length > size - file.tell():
                raise ValueError("is cut off")
            if field == METADATA_FIELD and length <= MOST_METADATA:
                key, value = _read_entry(file.read(length))
                found[key] = value
            else:
                file.seek(length, 1)
    return found


def seal_onnx(content: bytes) -> bytes:
    """Add the digest of a whole file to its metadata, at its end."""
    return content + _render_seal(hashlib.sha256(content).hexdigest())


def seal_program(content: bytes, metadata: bytes) -> bytes:
    """Add metadata (JSON) behind a program of ExecuTorch, and the digest of all."""
    return seal_onnx(content + metadata + struct.pack("<Q", len(metadata)))


def read_program_metadata(path: Path) -> Any:
    """Read the metadata behind a program of ExecuTorch; None where there are none. Errors as `read_xml_metadata`."""
    tail = len(_render_seal("0" * DIGITS)) + 8
    with open_plain(path) as file:
        end = path.stat().st_size - tail
        if end < 0:
            return None
        file.seek(end)
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(end, MOST_METADATA):
            return None
        file.seek(end - length)
        return parse_json(file.read(length))


def read_xml_metadata(path: Path) -> Any:
    """Read the metadata of an OpenVINO graph.

    Args:
        path: The `.xml`.

    Returns:
        What its JSON says; None where there is none.

    Raises:
        OSError: If the file cannot be read.
        ValueError: For text that is no JSON.
    """
    found = _STATED.search(read_plain(path, most_bytes=MOST_GRAPH))
    return None if found is None else parse_json(html.unescape(found[1].decode("utf-8", "replace")))


def compare_seal(path: Path) -> tuple[str, str] | None:
    """Compare the digest at the end of a file with that of the content before it.

    Args:
        path: The file.

    Returns:
        The digest that the file states, and the one that it has; None for a file without a seal.

    Raises:
        OSError: If the file cannot be read.
    """
    content = read_plain(path)
    start = _render_seal("")[2:-2]  # the key: the two lengths before it and behind it depend on the digest
    length = len(_render_seal("0" * DIGITS))
    tail = content[-length:]
    if len(content) < length or tail[2 : 2 + len(start)] != start:
        return None
    return tail[-DIGITS:].decode("latin-1"), hashlib.sha256(memoryview(content)[:-length]).hexdigest()


def _render_seal(digest: str) -> bytes:
    key, value = DIGEST_KEY.encode(), digest.encode()
    entry = bytes([1 << 3 | BYTES, len(key)]) + key + bytes([2 << 3 | BYTES, len(value)]) + value
    return bytes([METADATA_FIELD << 3 | BYTES, len(entry)]) + entry


def _read_number(file: BinaryIO) -> int:
    """Read a number of 7 bits a byte, the lowest first; the highest bit says that another byte follows."""
    value = 0
    for place in range(10):
        byte = file.read(1)
        if not byte:
            raise ValueError("is cut off")
        value |= (byte[0] & 0x7F) << 7 * place
        if byte[0] < 0x80:
            return value
    raise ValueError("is no ONNX file")


def _skip(file: BinaryIO, kind: int) -> None:
    if kind not in SKIPPED:
        raise ValueError("is no ONNX file")
    if kind == 0:
        _read_number(file)
    else:
        file.seek(SKIPPED[kind], 1)


def _read_entry(entry: bytes) -> tuple[str, str]:
    """Read the key and the value of one entry."""
    texts, file = {1: "", 2: ""}, io.BytesIO(entry)
    while file.tell() < len(entry):
        field, kind = divmod(_read_number(file), 8)
        if kind != BYTES:
            _skip(file, kind)
            continue
        texts[field] = file.read(_read_number(file)).decode("utf-8", "replace")
    return texts[1], texts[2]
