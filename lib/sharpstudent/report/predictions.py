"""The files of a prediction: a journal that grows with each answer, predictions.json, a CSV, and a page for each input.

`Predictions` defines the form of predictions.json; docs/predictions.schema.json is its JSON Schema. Readers of schema
`sharpstudent/predictions/1` may rely on every key: new keys may be added under the same number, and a change of meaning
raises it. All numbers are finite.

    OUT/predictions.jsonl    the journal: what was asked for, then a line for each answer; a repeat goes on after it
    OUT/predictions.json     all answers, written at the end, also after Ctrl-C
    OUT/predictions.csv      a row for each input
    OUT/NAME.html, NAME.csv  the page of an input, which opens without a network, and its single rows
    OUT/NAME.read.jsonl      what was read of an input, until its answer is there (deploy/kept_tables.py)
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import parse_json, read_text
from sharpstudent.core.io import (
    LOCK_NAME,
    append_text,
    list_foreign,
    lock_folder,
    make_folder,
    remove_stray_temporaries,
    write_text_atomically,
)
from sharpstudent.core.naming import format_csv, make_slug
from sharpstudent.core.types import Answer, InputSource
from sharpstudent.report.chart import DARK_PAPER, DARK_SERIES, LIGHT_PAPER, LIGHT_SERIES, render_svg
from sharpstudent.report.page import build_templates
from sharpstudent.report.results import Plain

SCHEMA = "sharpstudent/predictions/1"
JOURNAL, PREDICTIONS, TABLE = "predictions.jsonl", "predictions.json", "predictions.csv"
Status = Literal["answered", "unreadable", "partial"]


class Prediction(Plain):
    """The answer about one input.

    Attributes:
        input: The input as the user named it, or as it was found; printable.
        status: `answered`; `unreadable` where there is no answer; `partial` where reading was stopped before the end.
        outcome: The answer in one word, such as the name of a class; null where there is none.
        sentence: The answer in one sentence, or the reason why there is none.
        reasons: Further sentences: what the answer rests on, and what it does not say.
        score: The probability that the answer rests on, 0..1; null without one.
        details: What the task says besides, in the form that the schema has for it; empty where there is no answer.
        page: The page of the input, beside this file; null where none was written.
        rows: The CSV of its single rows, beside this file; null where none was written.
        seconds: The time from the first sample of the input to its answer [s].
    """

    input: str
    status: Status
    outcome: str | None = None
    sentence: str
    reasons: tuple[str, ...] = ()
    score: float | None = Field(default=None, ge=0.0, le=1.0)
    details: Mapping[str, Any] = Field(default_factory=dict)
    page: str | None = None
    rows: str | None = None
    seconds: float = 0.0

    @property
    def probability(self) -> float | None:
        """The score, as the API calls it."""
        return self.score

    def _repr_html_(self) -> str:
        """Show the answer in a notebook: its sentence, and what it rests on."""
        reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in self.reasons)
        return f"<p><b>{html.escape(self.input)}</b>: {html.escape(self.sentence)}</p><ul>{reasons}</ul>"


class ClassDetails(Plain):
    """The details of a classification.

    Attributes:
        temperature: The stored temperature of the logits; null where none is stored.
        classes: The names of the classes.
    """

    temperature: float | None
    classes: tuple[str, ...]


class ValueRange(Plain):
    """The range of an output of many values: its shape, the lowest and highest value, and where the highest is."""

    shape: tuple[int, ...]
    low: float
    high: float
    largest_at: tuple[int, ...]


class ValueDetails(Plain):
    """The details of a task that says nothing about predictions: by row, its `id` and each output."""

    rows: tuple[Mapping[str, str | bool | float | list[Any] | ValueRange], ...]


class PredictionRequest(Plain):
    """The model and the settings of predictions, which decide whether a journal may be continued.

    Attributes:
        task: The task.
        model: The name of the model.
        sha256: The sha256 of the model's file.
        options: The settings that decide answers, by name.
    """

    task: str
    model: str
    sha256: str
    options: Mapping[str, Any] = Field(default_factory=dict)


class Predictions(Plain):
    """Everything in predictions.json.

    Attributes:
        schema_: `sharpstudent/predictions/1`, under the key `schema`.
        made_at: When the file was written, ISO 8601, UTC.
        is_complete: Whether every input has its answer; false after Ctrl-C.
        request: The model and the settings.
        notes: Remarks on the model.
        predictions: The answers, in the order of the inputs.
    """

    schema_: Literal["sharpstudent/predictions/1"] = Field(default=SCHEMA, alias="schema")
    made_at: str
    is_complete: bool
    request: PredictionRequest
    notes: tuple[str, ...] = ()
    predictions: tuple[Prediction, ...]


def build_schema(details: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """Build the JSON Schema of predictions.json.

    Args:
        details: The form of `Prediction.details`, by the name of the task in `PredictionRequest`.

    Returns:
        The schema. Which form details have follows from the task; those of a task that is not named are free.
    """
    schema = Predictions.model_json_schema()
    rules: list[dict[str, Any]] = []
    for task, form in details.items():
        own = form.model_json_schema(ref_template="#/$defs/{model}")
        schema["$defs"] |= {**own.pop("$defs", {}), form.__name__: own}
        is_it = {"properties": {"request": {"properties": {"task": {"const": task}}}}}
        shape = {"anyOf": [{"$ref": f"#/$defs/{form.__name__}"}, {"maxProperties": 0}]}  # empty: not read to its end
        items = {"properties": {"details": shape}}
        rules.append({"if": is_it, "then": {"properties": {"predictions": {"items": items}}}})
    return {**schema, "allOf": rules}


def build_prediction(source: InputSource, answer: Answer, *, seconds: float, status: Status = "answered") -> Prediction:
    """Turn an answer into its row.

    Args:
        source: The input.
        answer: What the task says.
        seconds: How long it took [s].
        status: As in `Prediction`.

    Returns:
        The row.
    """
    named = {name: getattr(answer, name) for name in ("outcome", "sentence", "reasons", "score", "details")}
    return Prediction(input=source.name, status=status, seconds=round(seconds, 3), **named)


class PredictionFolder:
    """The folder of predictions. Each answer is on the disk before the next one is computed."""

    def __init__(self, folder: Path, request: PredictionRequest, say: Callable[[str], None]) -> None:
        """Open or continue a folder.

        Args:
            folder: The folder; it is made.
            request: The model and the settings.
            say: Prints a line for the user.

        Raises:
            UserError: If the folder holds other things, or predictions of another model or with other settings; if
                another process writes there; and where the disk refuses.
        """
        self._folder, self._request = folder, request
        _check_ours(folder)
        make_folder(folder)
        self._lock = lock_folder(folder, say, doing="written")
        remove_stray_temporaries(folder)
        self._done = self._read_journal()

    def find(self, source: InputSource) -> Prediction | None:
        """Find the answer of an earlier run about a file that has not changed since."""
        return self._done.get(identify(source))

    def add(self, source: InputSource, prediction: Prediction, answer: Answer | None) -> Prediction:
        """Write the page and the rows of an answer, then its line of the journal.

        Args:
            source: The input.
            prediction: The answer as data.
            answer: The answer with its charts and pictures; None where there is none.

        Returns:
            The prediction with the names of these files.
        """
        if answer is not None:
            name = name_files(source)
            written: dict[str, str] = {"page": f"{name}.html"}
            if answer.columns:
                written["rows"] = f"{name}.csv"
                write_text_atomically(self._folder / written["rows"], format_csv([answer.columns, *answer.rows]))
            prediction = prediction.model_copy(update=written)
            write_text_atomically(self._folder / written["page"], render_prediction(prediction, answer, self._request))
        line = {"key": identify(source), "prediction": prediction.model_dump(mode="json")}
        append_text(self._folder / JOURNAL, json.dumps(line) + "\n", sync=True)
        return prediction

    def name_kept(self, source: InputSource) -> Path:
        """Name the file for what is read of an input before its answer is there."""
        return self._folder / f"{name_files(source)}.read.jsonl"

    def close(self, predictions: Sequence[Prediction], *, notes: Sequence[str], is_complete: bool) -> None:
        """Write predictions.json and predictions.csv, and release the folder.

        Args:
            predictions: The answers, in the order of the inputs.
            notes: Remarks on the model.
            is_complete: Whether every input has its answer.
        """
        found = Predictions(
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            is_complete=is_complete,
            request=self._request,
            notes=tuple(notes),
            predictions=tuple(predictions),
        )
        content = json.dumps(found.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False)
        write_text_atomically(self._folder / PREDICTIONS, content + "\n")
        columns = ("input", "status", "outcome", "score", "sentence", "page")
        rows = [[getattr(one, column) for column in columns] for one in predictions]
        write_text_atomically(self._folder / TABLE, format_csv([columns, *rows]))
        if self._lock is not None:
            self._lock.release()

    def _read_journal(self) -> dict[str, Prediction]:
        """Read the answers of earlier runs; a line that was cut off by a kill is removed, and its input asked again."""
        path = self._folder / JOURNAL
        header = json.dumps({"schema": SCHEMA, "request": self._request.model_dump(mode="json")})
        lines: list[str] = []
        if path.is_file():
            try:
                lines = read_text(path).splitlines()
            except (OSError, ValueError) as error:
                raise UserError.about(
                    str(path), "cannot be read", got=str(error), remedy="choose another folder"
                ) from None
        if lines and lines[0] != header:
            raise UserError.about(
                f"--out {self._folder}",
                "holds predictions of another model, or with other options",
                expected=header,
                got=lines[0][:500],
                remedy="choose another folder",
            )
        kept, done = [header], dict[str, Prediction]()
        for line in lines[1:]:
            try:
                found = parse_json(line)
                prediction = Prediction.model_validate(found["prediction"])
            except (ValueError, KeyError, TypeError, ValidationError):
                continue  # cut off, or damaged: that input is read again
            kept.append(line)
            if prediction.status != "partial":
                done[str(found["key"])] = prediction
        if kept != lines:
            write_text_atomically(path, "".join(f"{line}\n" for line in kept))
        return done


def _check_ours(folder: Path) -> None:
    """Raise UserError for a folder with other things than predictions, and for what is no folder."""
    if folder.exists() and not folder.is_dir():
        raise UserError.about(f"--out {folder}", "is a file", expected="a folder", remedy="choose another name")
    if folder.is_dir() and not (folder / JOURNAL).is_file() and set(list_foreign(folder)) - {LOCK_NAME}:
        raise UserError.about(
            f"--out {folder}",
            "holds other things: predictions are not written among them",
            expected="a new or empty folder, or one with earlier predictions",
            remedy="choose another folder",
        )


def identify(source: InputSource) -> str:
    """Identify an input by its name, size and time of change."""
    try:
        about = None if source.path is None else source.path.stat()
    except OSError:
        about = None
    parts = [source.name, str(source.path)] + ([] if about is None else [str(about.st_size), str(about.st_mtime_ns)])
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def name_files(source: InputSource) -> str:
    """Name the files of an input: readable, and never the same for two inputs."""
    digest = hashlib.sha256(f"{source.name}\n{source.path}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{make_slug(Path(source.name).stem)}-{digest}"


def render_prediction(prediction: Prediction, answer: Answer, request: PredictionRequest) -> str:
    """Render the page of one input: the answer, its charts and pictures, and how it was made.

    Args:
        prediction: The answer as data.
        answer: The answer with charts and pictures.
        request: The model and the settings.

    Returns:
        HTML without scripts that fetches nothing.
    """
    making = [("Model", request.model), ("sha256 of the model", request.sha256), ("Task", request.task)]
    making += [(name.replace("_", " ").capitalize(), str(value)) for name, value in request.options.items()]
    return _render("prediction.html.j2", prediction, answer, making=making)


def render_answer(prediction: Prediction, answer: Answer) -> str:
    """Render the part of such a page that holds the answer, its charts and its pictures, for another page.

    Args:
        prediction: The answer as data.
        answer: The answer with charts and pictures.

    Returns:
        The sections, as HTML.
    """
    return _render("answer.html.j2", prediction, answer)


def _render(template: str, prediction: Prediction, answer: Answer, **parts: Any) -> str:
    pictures = [
        (title, [(_to_address(content), caption) for content, caption in shown])
        for title, shown in answer.pictures.items()
        if shown
    ]
    return (
        build_templates()
        .get_template(template)
        .render(
            prediction=prediction,
            charts=[(chart, render_svg(chart)) for chart in answer.charts],
            pictures=pictures,
            are_whole=answer.has_whole_pictures,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            colours={"light": (LIGHT_PAPER, LIGHT_SERIES), "dark": (DARK_PAPER, DARK_SERIES)},
            **parts,
        )
    )


def _to_address(content: bytes) -> str:
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
