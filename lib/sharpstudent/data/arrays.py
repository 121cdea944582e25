"""Predictions of a task that says nothing about them itself: inputs are files of arrays, answers are plain values.

Legend: k rows of a sample, N rows of a table, C classes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.files import explain, read_plain
from sharpstudent.core.types import Answer, Batch, InputSource, Sample, Table
from sharpstudent.data.dataset import UnreadableSample

MOST_BYTES = 500_000_000  # of a file of arrays, packed and unpacked
MOST_VALUES = 100  # of one output of one row, that an answer lists; of more it tells the range


def read_arrays(source: InputSource, example: Batch) -> Sample:
    """Read the inputs of a model from an .npy or .npz file.

    Args:
        source: The file.
        example: A batch of one sample, which tells the names and shapes of the inputs.

    Returns:
        The sample. An array may lack the axis of the rows where it holds one row.

    Raises:
        UnreadableSample: For another kind of file, and for arrays of other names or shapes.
    """
    if source.path is None:
        raise UnreadableSample(source.name, "is no file, and this task reads files of arrays alone: .npy or .npz")
    try:
        found = np.load(io.BytesIO(read_plain(source.path, most_bytes=MOST_BYTES)), allow_pickle=False)
        arrays = {"": found} if isinstance(found, np.ndarray) else _unpack(found)
    except Exception as error:  # noqa: BLE001 (the parser of hostile headers may raise anything)
        raise UnreadableSample(source.name, f"is no file of arrays ({explain(error)})") from None
    if "" in arrays:
        names = ", ".join(example.inputs)
        if len(example.inputs) > 1:
            raise UnreadableSample(source.name, f"holds one array, and there are several inputs: an .npz with {names}")
        arrays = {names: arrays[""]}
    unknown = arrays.keys() - example.inputs.keys()
    if unknown or not arrays:
        known = ", ".join(example.inputs)
        raise UnreadableSample(source.name, f"holds {', '.join(sorted(unknown)) or 'nothing'}, and inputs are {known}")
    inputs = {name: _fit(source.name, name, array, example.inputs[name]) for name, array in arrays.items()}
    shared = {name: index for name, index in example.shared.items() if name in inputs}
    rows = next((len(array) for name, array in inputs.items() if name not in shared), 1)
    names = (source.name,) if rows == 1 else tuple(f"{source.name}, {number}" for number in range(1, rows + 1))
    for name, array in inputs.items():
        if name not in shared and len(array) != rows:
            raise UnreadableSample(source.name, f"holds {len(array)} rows of {name} and {rows} of another input")
    return Sample(inputs=inputs, rows={"id": names}, shared=shared)


def write_arrays(batch: Batch) -> bytes:
    """Write the inputs of a batch as an .npz file, as `read_arrays` reads one."""
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: values.numpy() for name, values in batch.inputs.items()}
    np.savez(file, **arrays)
    return file.getvalue()


def _unpack(archive: Any) -> dict[str, NDArray[Any]]:
    with archive:
        if sum(record.file_size for record in archive.zip.infolist()) > MOST_BYTES:
            raise ValueError("it claims to be larger than any input")
        return {name: archive[name] for name in archive.files}


def _fit(source: str, name: str, array: NDArray[Any], example: Any) -> NDArray[Any]:
    """Give an array the type of its input, and the axis of the rows where it lacks one."""
    wanted = example.numpy()
    shape = wanted.shape[1:]
    is_one_row = [side for side in array.shape if side != 1] == [side for side in shape if side != 1]
    array = array.reshape(1, *shape) if is_one_row else array
    if array.dtype.kind not in "fiub" or array.shape[1:] != shape or not array.shape or len(array) == 0:
        got = f"{array.dtype} {array.shape}"
        raise UnreadableSample(
            source, f"holds {name} as {got}, and numbers of shape ({', '.join(['k', *map(str, shape)])}) are needed"
        )
    if not np.isfinite(array).all():
        raise UnreadableSample(source, f"holds values of {name} that are not finite")
    return np.ascontiguousarray(array, wanted.dtype)


def describe_outputs(tables: Sequence[Table], *, unit: str) -> Answer:
    """Tell the values of a model's outputs.

    Args:
        tables: The tables of one source.
        unit: What a row is called.

    Returns:
        The answer, with the values of each row, or their range where a row has many.
    """
    rows = [row for table in tables for row in _list_rows(table)]
    first = "; ".join(f"{name} {_tell(value)}" for name, value in rows[0].items() if name != "id") if rows else ""
    more = f"The first of {format_count_of(len(rows), unit)}: " if len(rows) > 1 else ""
    return Answer(
        outcome="values",
        sentence=f"{more}{first}." if rows else "There is nothing in it that the model reads.",
        details={"rows": [{name: _to_json(value) for name, value in row.items()} for row in rows]},
    )


def _list_rows(table: Table) -> list[dict[str, Any]]:
    columns = [name for name in table if name == "id" or table[name].dtype.kind in "fiub"]
    return [{name: table[name][row] for name in columns} for row in range(len(table["id"]))]


def _tell(value: Any) -> str:
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{float(array):.4g}"
    if array.size <= 10 and array.ndim == 1:
        return ", ".join(f"{number:.4g}" for number in array.tolist())
    place = ", ".join(map(str, np.unravel_index(int(array.argmax()), array.shape)))
    return f"{float(array.min()):.4g} to {float(array.max()):.4g}, the largest at ({place})"


def _to_json(value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return str(array)
    if array.size <= MOST_VALUES:
        return array.tolist()
    largest = [int(place) for place in np.unravel_index(int(array.argmax()), array.shape)]
    return {"shape": list(array.shape), "low": float(array.min()), "high": float(array.max()), "largest_at": largest}


def describe_classes(
    tables: Sequence[Table], classes: Sequence[str], temperature: float | None, *, unit: str
) -> Answer:
    """Name the class of each row with its probability, the softmax of logits / temperature.

    Args:
        tables: The tables of one source, with `logits` (N, C).
        classes: The names of the classes (C,).
        temperature: The temperature that calibrates the logits; None where none is stored.
        unit: What a row is called.

    Returns:
        The answer; with several rows it is about the one of the largest probability.
    """
    judged = [table for table in tables if "logits" in table]
    if not judged:
        return Answer(outcome="nothing", sentence="There is nothing in it that the model reads.")
    ids = [str(name) for table in judged for name in table["id"].tolist()]
    logits = np.concatenate([table["logits"] for table in judged]).astype(np.float64) / (temperature or 1.0)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    best = int(probabilities.max(axis=1).argmax())
    names = list(classes) or [str(number) for number in range(logits.shape[1])]
    found = names[int(probabilities[best].argmax())]
    score = float(probabilities[best].max())
    which = f" ({ids[best]}, of {format_count_of(len(ids), unit)})" if len(ids) > 1 else ""
    kind = "calibrated probability" if temperature is not None else "probability that is not calibrated"
    return Answer(
        outcome=found,
        sentence=f"{found}{which}, with a {kind} of {'more than 99.9' if score > 0.999 else f'{100 * score:.1f}'} %.",
        score=score,
        details={"temperature": temperature, "classes": names},
        columns=("id", "class", *names),
        rows=[
            (name, names[int(row.argmax())], *(round(float(value), 6) for value in row))
            for name, row in zip(ids, probabilities, strict=True)
        ],
    )
