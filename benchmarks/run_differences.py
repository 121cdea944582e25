"""What differs between two folders of runs, to the last bit; serves goldens.py."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STAMP = re.compile(r"_\d\d(_\d\d){4}(?!\d)")  # of the folder of a run

# Keys that tell when, where and with what a run was made, not what came out of it; at any depth, in any JSON.
IGNORED = frozenset(
    {
        *("made_at", "command", "environment", "versions", "date"),  # of results
        *("latency_ms", "latency_p95_ms", "memory_bytes"),  # of costs
        *("sha256", "file_bytes", "bytes", "contents"),  # of files that hold JSON themselves
    }
)

# What checkpoints have said of themselves since November 2026, and not before.
ADDED = frozenset({"facts", "start"})

RUNS = ("teacher", "first", "second", "cut")
EVALUATIONS = ("evaluated", "compared")
SHOWN = 20  # differences of one file


@dataclass(frozen=True)
class Row:
    """One thing that was compared; difference: the first one in words, empty where there is none."""

    name: str
    difference: str


def compare(old: Path, new: Path) -> Iterator[Row]:
    """A row for each thing; a file that one of the two lacks differs."""
    yield compare_files("prepared set", "prepared/manifest.arrow", old, new, read_bytes)
    for run in RUNS:
        for name, read in (("losses.logs", read_log), ("metrics.csv", read_table)):
            yield compare_files(f"{run}: {name}", f"output/{run}_*/logs/{name}", old, new, read)
        yield compare_files(f"{run}: first_batch.png", f"output/{run}_*/logs/first_batch.png", old, new, read_bytes)
        for name in ("best_model.pth", "last.pth"):
            yield compare_files(f"{run}: {name}", f"output/{run}_*/weights/{name}", old, new, read_tensors)
    yield compare_files("second: preflight.json", "output/second_*/logs/preflight.json", old, new, read_json)
    for name in EVALUATIONS:
        yield compare_files(f"{name}: scores.csv", f"{name}/scores.csv", old, new, read_table)
        yield compare_files(f"{name}: results.json", f"{name}/results.json", old, new, read_json)


def compare_files(name: str, pattern: str, old: Path, new: Path, read: Callable[[Path], Any]) -> Row:
    """One row: the file of that pattern in both places, read and compared leaf by leaf."""
    paths = {"OLD": find(old, pattern), "NEW": find(new, pattern)}
    absent = [where for where, path in paths.items() if path is None]
    if absent:
        return Row(name, f"absent in {' and '.join(absent)}")
    before, after = (dict(flatten(read(path))) for path in paths.values() if path is not None)
    return Row(name, find_difference(before, after))


def find(place: Path, pattern: str) -> Path | None:
    """The only path of that pattern below `place`; None where there is none, or more than one."""
    found = sorted(place.glob(pattern))
    return found[0] if len(found) == 1 else None


def read_bytes(path: Path) -> str:
    return path.read_bytes().hex()


def read_table(path: Path) -> list[dict[str, str]]:
    """A CSV file, every cell as its text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_log(path: Path) -> list[list[str]]:
    """The lines of the epochs, in parts; remarks tell of the disk, of folders and of where a run was cut."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split(" | ") for line in lines if line.startswith("Epoch ")]


def read_json(path: Path) -> Any:
    """A JSON file; the order of its keys says nothing."""
    return sort_keys(json.loads(path.read_text(encoding="utf-8")))


def read_tensors(path: Path) -> dict[str, Any]:
    """All parts of a checkpoint (model, optimizer, average, rng, ...), and what it says of itself, in any order."""
    import torch

    loaded = torch.load(path, weights_only=True)
    return {**loaded, "about": sort_keys(json.loads(loaded["about"]))}


def sort_keys(value: Any) -> Any:
    """JSON values with their keys in order, without the added ones."""
    if isinstance(value, dict):
        return {key: sort_keys(part) for key, part in sorted(value.items()) if key not in ADDED}
    return [sort_keys(part) for part in value] if isinstance(value, list) else value


def flatten(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of nested tables and lists, without the ignored keys and without the time in the name of a run.

    Args:
        value: tables, lists and leaves (tensors, numbers, texts), to any depth.
        where: path of `value` from the top.

    Yields:
        (path, leaf); order and number of keys and items are leaves, too.
    """
    if isinstance(value, dict):
        parts = {neutral(str(key)): part for key, part in value.items() if key not in IGNORED}
        yield f"{where} keys", list(parts)
        for key, part in parts.items():
            yield from flatten(part, f"{where}/{key}")
    elif isinstance(value, list | tuple):
        yield f"{where} length", len(value)
        for index, part in enumerate(value):
            yield from flatten(part, f"{where}[{index}]")
    else:
        yield where, neutral(value) if isinstance(value, str) else value


def neutral(text: str) -> str:
    """The text without the time in the name of a run's folder."""
    return STAMP.sub("_STAMP", text)


def find_difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first leaves that are not the same to the bit, in words, and how many there are; empty where all are."""
    different = [name for name in dict.fromkeys((*old, *new)) if to_bits(old.get(name)) != to_bits(new.get(name))]
    if not different:
        return ""
    lines = [f"{name} {describe_pair(old.get(name), new.get(name))}" for name in different[:SHOWN]]
    return "\n    ".join([f"{len(different)} of {len(old)} values", *lines])


def to_bits(value: Any) -> Any:
    """What is equal for values that are the same to the bit, NaN included."""
    if hasattr(value, "numpy"):
        flat = value.detach().cpu().contiguous()
        return str(flat.dtype), tuple(flat.shape), flat.numpy().tobytes()
    return repr(value)


def describe_pair(old: Any, new: Any) -> str:
    if hasattr(old, "numpy") and hasattr(new, "numpy") and old.shape == new.shape:
        return f"by up to {(old.double() - new.double()).abs().max().item():.3g}"
    return " -> ".join(text if len(text := repr(value)) <= 300 else f"{text[:297]}..." for value in (old, new))
