"""Keeps the tables of an input that is being read, so that the same command goes on after them when it was killed.

A file of lines, each with its CRC-32: the first names the input, every other one holds some tables. A line that was cut
off by a kill ends the file. Values come back to the last bit: numbers as their bytes, pictures as they were encoded.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.files import open_plain, parse_json
from sharpstudent.core.io import append_text, disk_errors_as_user_errors, write_text_atomically
from sharpstudent.core.types import Table

FORM = "sharpstudent/tables/1"
LEAST_TABLES = 16  # of a line: an input with fewer of them begins anew, and leaves no file
MOST_TEXT = 500_000  # characters of a table: with whole pictures in it, hours would fill the disk
_NUMBERS = "biuf"  # kinds of NumPy's types


class KeptTables:
    """The file of one input.

    Attributes:
        count: How many tables it holds: as many samples are known.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Read what is there; what was cut off, or is of another input, is thrown away.

        Args:
            path: The file; it need not exist.
            key: Identifies the input with its present content.

        Raises:
            UserError: Where the disk refuses.
        """
        self._path, self._header = path, _write_line(json.dumps({"form": FORM, "key": key}))
        self._pending = list[str]()  # tables as JSON
        self._is_usable, self.count, size = True, 0, 0
        if not os.path.lexists(path):
            return
        with disk_errors_as_user_errors(path):
            for tables, end in self._read_lines():
                self.count, size = self.count + len(tables), end
            if size:
                os.truncate(path, size)

    def read(self) -> Iterator[Table]:
        """Read all tables, in their order."""
        for tables, _ in self._read_lines() if self.count else ():
            yield from tables

    def add(self, table: Table, *, is_settled: bool) -> None:
        """Keep one more table.

        Args:
            table: The table. Where one is too large, or holds what no file can, such as an object of the task's own,
                nothing of the input is kept: it begins anew.
            is_settled: Whether there is a table of each sample up to the last one that was read.

        Raises:
            UserError: Where the disk refuses.
        """
        if not self._is_usable:
            return
        try:
            text = json.dumps({name: _encode(column) for name, column in table.items()})
        except TypeError:
            text = ""
        if not 0 < len(text) <= MOST_TEXT:
            self._is_usable = False
            self.remove()
            return
        self._pending.append(text)
        if is_settled and len(self._pending) >= LEAST_TABLES:
            line = _write_line(f'{{"tables": [{", ".join(self._pending)}]}}')
            if self.count:
                append_text(self._path, line)
            else:
                write_text_atomically(self._path, self._header + line)
            self.count += len(self._pending)
            self._pending = []

    def remove(self) -> None:
        """Remove the file: the input has its answer."""
        with disk_errors_as_user_errors(self._path):
            self._path.unlink(missing_ok=True)

    def _read_lines(self) -> Iterator[tuple[Sequence[Table], int]]:
        """Read the tables of each line, with the place where it ends [bytes], up to the first that is damaged."""
        with open_plain(self._path) as file:
            if file.readline(len(self._header)) != self._header.encode():
                return
            for line in file:
                try:
                    tables = [
                        {name: _decode(column) for name, column in table.items()}
                        for table in _read_line(line)["tables"]
                    ]
                except (ValueError, KeyError, TypeError, AttributeError):
                    return
                yield tables, file.tell()


def _write_line(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def _read_line(line: bytes) -> Any:
    """Read a line; ValueError where it is cut off or damaged."""
    digest, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or digest != f"{zlib.crc32(text):08x}".encode():
        raise ValueError("damaged")
    return parse_json(text)


def _encode(value: Any) -> Any:
    """Turn a value into JSON; TypeError for what cannot be."""
    if isinstance(value, np.ndarray):
        return _encode_array(value)
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return {"tuple": [_encode(one) for one in value]}
    if isinstance(value, list):
        return [_encode(one) for one in value]
    if isinstance(value, np.generic):
        return _encode(value.item())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(type(value).__name__)


def _encode_array(array: NDArray[Any]) -> Any:
    if array.dtype.kind in _NUMBERS:
        content = base64.b64encode(array.tobytes()).decode()
        return {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": content}
    if array.ndim == 1 and array.dtype.kind in "UO":
        return {"dtype": array.dtype.kind, "values": [_encode(one) for one in array.tolist()]}
    raise TypeError(str(array.dtype))


def _decode(value: Any) -> Any:
    """Turn JSON back into the value; ValueError, KeyError or TypeError for what `_encode` did not make."""
    if isinstance(value, list):
        return [_decode(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_decode(one) for one in value["tuple"])
    if "dtype" not in value:
        return base64.b64decode(value["bytes"], validate=True)
    if value["dtype"] == "U":
        return np.array(value["values"], str)
    if value["dtype"] == "O":
        found = np.empty(len(value["values"]), object)
        found[:] = [_decode(one) for one in value["values"]]
        return found
    kind = np.dtype(value["dtype"])
    if kind.kind not in _NUMBERS:
        raise ValueError(value["dtype"])
    return np.frombuffer(base64.b64decode(value["bytes"], validate=True), kind).reshape(value["shape"]).copy()
