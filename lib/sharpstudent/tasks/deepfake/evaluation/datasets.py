"""Opens the data sets to evaluate models on: prepared sets, folders whose faces are cropped first, and face crops.

A request that the data cannot meet is refused before anything is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import chain, count
from typing import Any

import numpy as np
from rich.console import Console

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import Problem, UserError, format_count_of
from sharpstudent.core.files import read_column_table
from sharpstudent.evaluation import tables
from sharpstudent.evaluation.command_line import DataRequest
from sharpstudent.evaluation.renderer import Session
from sharpstudent.metrics.checks import MetricError, name_some
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST
from sharpstudent.tasks.deepfake.evaluation.calibration import check_storable
from sharpstudent.tasks.deepfake.evaluation.command_line import FaceRequest
from sharpstudent.tasks.deepfake.evaluation.crops_set import read_crops_set, read_folder_set
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import FaceSet, LabelledFaceSet, find_input
from sharpstudent.tasks.deepfake.evaluation.frames import Aggregation, ScoredFrames
from sharpstudent.tasks.deepfake.evaluation.manifest_set import find_columns, read_manifest_set
from sharpstudent.tasks.deepfake.evaluation.robustness import choose_corruptions
from sharpstudent.tasks.deepfake.evaluation.run_validation import ValidationSet, open_validation
from sharpstudent.tasks.deepfake.evaluation.set_request import DataChoices, SetRequest, find_folder, name_folder
from sharpstudent.tasks.deepfake.layouts.listing import TABLE_SUFFIXES
from sharpstudent.tasks.deepfake.layouts.own_files import PATH_COLUMNS
from sharpstudent.tasks.deepfake.sources.manifest import CLASSES
from sharpstudent.tasks.deepfake.swaps.folder import TABLE


def open_sets(
    requests: Sequence[SetRequest], *, say: Callable[[str], None], console: Console | None = None
) -> list[LabelledFaceSet]:
    """Open data sets in the order of the requests.

    Sets that cost nothing are opened first, so that a mistake in the last set does not come after hours of cropping.

    Args:
        requests: The requested data sets.
        say: Prints a line for the user.
        console: Draws the progress bar of a long cropping, where there is one.

    Returns:
        The opened sets.

    Raises:
        UserError: For no set, bad names and paths, a set that cannot be used, and where all sets together hold one
            class only.
    """
    names = choose_names(requests)
    opened: dict[int, LabelledFaceSet] = {}
    for number in sorted(range(len(requests)), key=lambda number: find_kind(requests[number]) == "folder"):
        opened[number] = _open(requests[number], names[number], say, console)
    sets = [opened[number] for number in range(len(requests))]
    for found in sets:
        for line in _describe(found):
            say(line)
    _check_both_classes(sets)
    return sets


def choose_names(requests: Sequence[SetRequest]) -> list[str]:
    """Choose a name for each set: the one given, else that of its folder, made unique.

    Raises UserError for no set at all, a path that does not exist or is there twice, and a name that is empty, is there
    twice, or holds a / (which stands between set and kind of fake in metrics' names).
    """
    if not requests:
        raise UserError.about(
            "--data", "names no data set", "a prepared set or a folder", "none", "name one or more of them"
        )
    expected = "a prepared set's folder or manifest.arrow, or a folder or table of pictures or videos"
    missing = [
        Problem(str(one.path), "does not exist", expected, remedy="check the path; is the disk mounted?")
        for one in requests
        if not one.path.exists()
    ]
    if missing:
        raise UserError(*missing)
    folders = [find_folder(one.path).resolve() for one in requests]
    given = [one.name for one in requests if one.name is not None]
    taken = tables.check_names(given, list(map(str, folders)), sign="/")
    names: list[str] = []
    for one, folder in zip(requests, folders, strict=True):
        own = name_folder(folder)
        free = (name for name in chain([own], (f"{own}-{number}" for number in count(2))) if name not in taken)
        names.append(one.name or next(free))
        taken.append(names[-1])
    return names


def find_kind(request: SetRequest) -> str:
    """Find the kind of a set: `crops`, `manifest`, or `folder` where faces have to be cropped first."""
    if request.crops:
        return "crops"
    path = request.path
    is_manifest = path.suffix == ".arrow" if path.is_file() else (path / MANIFEST).exists()
    return "manifest" if is_manifest else "folder"


def _open(request: SetRequest, name: str, say: Callable[[str], None], console: Console | None) -> LabelledFaceSet:
    kind = find_kind(request)
    if kind == "crops":
        return read_crops_set(request, name=name)
    if kind == "manifest":
        return read_manifest_set(request.path, name=name, split=request.split, faces=request.faces)
    if (request.path / TABLE).is_file():
        raise UserError.about(
            str(request.path),
            f"holds face crops, as its {TABLE} says: they would be cropped twice",
            remedy="add --crops",
        )
    return read_folder_set(request, name=name, say=say, console=console)


def _describe(found: LabelledFaceSet) -> list[str]:
    about = found.about
    left_out = sum(about.without_decision.values())
    line = (
        f"data {about.name} ({about.kind}{f', split {about.split}' if about.split else ''}): "
        f"{format_count_of(about.frames, 'frame')}, {about.real:,} real and {about.fake:,} fake, of "
        f"{format_count_of(about.videos, 'video')} and {format_count_of(about.people, 'person')}"
    )
    reasons = "; ".join(f"{count:,} x {reason}" for reason, count in about.without_decision.items())
    undecided = [f"without a decision: {left_out:,} ({reasons})"] if left_out else []
    return [line, *(f"  {further}" for further in (*undecided, *about.notes))]


def _check_both_classes(sets: Sequence[LabelledFaceSet]) -> None:
    """Raise UserError where all frames with a face are of one class; a single set may hold one class only."""
    labels = {label for found in sets for label in np.unique(found.labels).tolist()}
    if len(labels) == len(CLASSES):
        return
    there = " and ".join(CLASSES[label] for label in labels)
    samples = [f"{found.name}: {found.frames.sample_ids[frame]}" for found in sets for frame in found.frame_of[:3]]
    remedy = "name a set of the other class as well"
    if any(found.about.kind == "manifest" and found.about.split != "all" for found in sets):
        remedy += ", or another --split"
    raise UserError.about(
        ", ".join(found.name for found in sets),
        f"all {sum(len(found) for found in sets):,} faces are {there}: nothing can be told apart",
        expected="real and fake faces, over all data sets together",
        got=name_some(samples),
        remedy=remedy,
    )


# What the lines of a table may name, and the column of the frames with these names. The column of files is `path` in
# tables of pictures, whose names are those of the samples.
KEYS = {"sample": "sample_ids", "clip": "clip_ids", "path": "sample_ids", "person": "groups"}
_VARIANT = re.compile(r"#(?:real|blend|fake)\d*$")  # what a run's validation adds to the name of a picture or clip


def read_groups(request: FaceRequest, sets: Sequence[FaceSet]) -> Callable[[ScoredFrames], dict[str, list[str]]]:
    """Read the columns of --by: from --by-table, else from the table that each set was made from.

    Args:
        request: The command line.
        sets: The evaluated sets.

    Returns:
        A function of scored frames (N,) that returns the values of each column (N,), "" where nothing is known.

    Raises:
        UserError: For columns without a table, and for a table without these columns or without a column to join by.
    """
    if not request.by:
        return lambda _: {}
    set_of = {one.name: one for one in sets}
    paths = {one.name: request.by_table or one.table for one in sets}
    table_of = {name: read_column_table(path, request.by, tuple(KEYS)) for name, path in paths.items() if path}
    if not table_of:
        raise UserError(_explain_no_columns(request.by))

    def join(frames: ScoredFrames) -> dict[str, list[str]]:
        found = {name: [""] * len(frames) for name in request.by}
        for source, table in table_of.items():
            rows = [row for row, name in enumerate(frames.sources) if name == source]
            names = {key: [getattr(frames, column)[row] for row in rows] for key, column in KEYS.items()}
            if isinstance(set_of[source], ValidationSet) and request.by_table is None:
                names = {key: [_VARIANT.sub("", name) for name in column] for key, column in names.items()}
            for name, values in table.join(names).items():
                for row, value in zip(rows, values, strict=True):
                    found[name][row] = value
        return found

    return join


def _explain_no_columns(columns: Sequence[str]) -> Problem:
    return Problem(
        "--by",
        "names columns, but no table has them",
        expected=f"a CSV with person, clip or sample, and {', '.join(columns)}; or data that was made from such a one",
        remedy="--by-table people.csv",
    )


def _check_by(request: FaceRequest) -> None:
    """Refuse columns that no table has before faces are cropped: that may take hours."""
    if not request.by:
        return
    if request.by_table is not None:
        read_column_table(request.by_table, request.by, tuple(KEYS))
        return
    paths = [find_columns(find_folder(one.path)) or one.path for one in request.data]
    known = [path for path in paths if path.suffix.lower() in TABLE_SUFFIXES and path.is_file()]
    if request.data and not known:
        raise UserError(_explain_no_columns(request.by))
    for path in known:
        read_column_table(path, request.by, (*KEYS, *PATH_COLUMNS))


def check_request(session: Session) -> None:
    """Raise UserError for options that the opened models cannot meet."""
    request = session.request
    assert isinstance(request, FaceRequest)
    if request.store:
        check_storable(session.models)
    _check_rules(request.rules)
    _check_views(session)
    if request.robustness is not None:
        choose_corruptions(request.robustness, lambda _: None)
    _check_by(request)


def open_data(session: Session, config: RunConfig | None) -> tuple[list[FaceSet], list[LabelledFaceSet]]:
    """Open the sets to evaluate on, and those to choose thresholds on.

    Args:
        session: The evaluation in progress, with its models.
        config: The config of the run that the last model lies in; the run's validation data is used where no set is
            named. None where no model lies in a run folder.

    Returns:
        The sets of --data and those of --validation.

    Raises:
        UserError: For data that cannot be used.
    """
    request = session.request
    assert isinstance(request, FaceRequest)
    size = max(find_input(opened.input_key).image_size for opened in session.models)
    sets: list[FaceSet] = [*_open_sets(request.data, session, size)]
    sets = sets or [open_validation(config, [model.path for model in request.models])]
    validation = _open_sets(request.validation, session, size, is_validation=True)
    _check_apart(sets, validation)
    return sets, validation


def _check_views(session: Session) -> None:
    """Raise UserError where views are asked for of pictures that are made in one form only."""
    request = session.request
    assert isinstance(request, FaceRequest)
    if all(find_input(opened.input_key).views is None for opened in session.models):
        return
    if not request.data:
        what = "are made of pictures that are read, and a run makes its validation data itself"
        raise UserError.about("--views", what, expected="pictures of real and fake faces", remedy="add --data SET")
    if request.robustness is not None:
        what = "are not made of corrupted faces"
        raise UserError.about("--views", what, got="--robustness", remedy="leave one of the two out")


def _check_rules(names: Sequence[str]) -> None:
    for name in names:
        try:
            Aggregation(name)
        except MetricError as error:
            raise UserError.about("--video-rules", str(error), got=name, remedy="choose among these") from None


def _open_sets(
    wanted: Sequence[DataRequest], session: Session, image_size: int, *, is_validation: bool = False
) -> list[LabelledFaceSet]:
    if not wanted:
        return []
    request = session.request
    assert isinstance(request, FaceRequest)
    choices = asdict(request.choices)
    if is_validation and choices["split"] == "test":
        choices["split"] = "val"
    more: dict[str, Any] = {"workers": max(1, request.workers), "image_size": image_size}
    requests = [SetRequest(one.path, one.name, **choices, **more) for one in wanted]
    _check_choices(requests)
    return open_sets(requests, say=session.say, console=session.console)


def _check_choices(requests: Sequence[SetRequest]) -> None:
    """Raise UserError for an option that none of these sets can use: it would be ignored without a word."""
    kinds = {find_kind(request) for request in requests if request.path.exists()}
    one, default = requests[0], DataChoices()
    wanted: list[tuple[str, object, set[str], str]] = [
        ("--layout", one.layout, {"folder"}, "folders of whole pictures or videos"),
        ("--label", one.label, {"folder", "crops"}, "folders of pictures or videos"),
        ("--people", one.people, {"folder", "crops"}, "folders of pictures or videos"),
        ("--clips", True if one.clips else None, {"crops"}, "folders of face crops (--crops)"),
        ("--faces", None if one.faces == default.faces else one.faces, {"folder", "manifest"}, "whole frames"),
    ]
    problems = [
        Problem(
            option,
            f"has no meaning here: it is for {what}",
            got=f"sets of the kind: {', '.join(sorted(kinds))}",
            remedy="leave it out",
        )
        for option, value, of, what in wanted
        if value is not None and kinds and not kinds & of
    ]
    if problems:
        raise UserError(*problems)


def _check_apart(sets: Sequence[FaceSet], validation: Sequence[LabelledFaceSet]) -> None:
    """Raise UserError where thresholds would be chosen on the data that they are evaluated on."""
    known = {one.fingerprint: one.name for one in sets if isinstance(one, LabelledFaceSet)}
    for one in validation:
        if one.fingerprint in known:
            raise UserError.about(
                f"--validation {one.name}",
                f"holds the same faces as --data {known[one.fingerprint]}",
                expected="other people: thresholds are chosen on one set and evaluated on another",
                remedy="give another set, or another --split",
            )
