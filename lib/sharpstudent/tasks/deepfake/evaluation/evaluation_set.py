"""Data sets to evaluate detectors on: their faces, the frames that the faces are in, and their descriptions.

Reasons why frames have no decision are counted, so that a report can show them.

Legend: M frames, N faces.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.naming import printable
from sharpstudent.core.types import Table
from sharpstudent.data.dataset import Samples
from sharpstudent.evaluation.tables import EvalSet
from sharpstudent.metrics.checks import number_names
from sharpstudent.tasks.deepfake.evaluation.frames import (
    LEAST_FRAMES,
    MAX,
    MEAN,
    Aggregation,
    ScoredFrames,
    aggregate,
    count_videos,
)
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.report.results import DataResult
from sharpstudent.tasks.deepfake.samples import LabelledFaces, ViewedFaces
from sharpstudent.tasks.deepfake.sources.face import Face
from sharpstudent.tasks.deepfake.task import DeepfakeTask


class FaceInput(NamedTuple):
    """The form of a detector's inputs: the side of its pictures [px], and the name of their views; None without."""

    image_size: int
    views: str | None = None


def find_input(input_key: Hashable) -> FaceInput:
    """Find the form of inputs that an `OpenedModel.input_key` stands for; a number is the side without views."""
    if isinstance(input_key, FaceInput):
        return input_key
    assert isinstance(input_key, int)
    return FaceInput(input_key)


class FaceSet(EvalSet):
    """A data set of faces: it turns the scores of its faces into scores of the frames that they are in."""

    task: DeepfakeTask

    @property
    def table(self) -> Path | None:
        """The CSV with further columns of the set's clips, people or pictures, for --by; None where there is none."""
        return None

    @abstractmethod
    def to_frames(self, table: Table, unreadable: Mapping[str, str]) -> ScoredFrames:
        """Make frames of the scores that a model gave to the faces.

        Args:
            table: The model's outputs for the faces of the set, in their order.
            unreadable: Faces that could not be read, by name with the reason.

        Returns:
            The set's frames with their scores.
        """

    @abstractmethod
    def list_faces(self, table: Table) -> ScoredFrames:
        """Make a row for each face in the table, with the face's own name in place of the frame's."""

    @abstractmethod
    def describe(self, table: Table, unreadable: Mapping[str, str]) -> DataResult:
        """Describe the set for a report.

        Args:
            table: As in `to_frames`, of any of the models.
            unreadable: As in `to_frames`.

        Returns:
            Names, counts and notes.
        """


def name_frame(clip_id: str, frame_index: int) -> str:
    """Name a frame in its set.

    Args:
        clip_id: The clip; a photo is a clip of its own.
        frame_index: The number of the frame in the clip; 0 for a photo.

    Returns:
        The name.
    """
    return f"{clip_id}/{frame_index:06d}"


def compute_fingerprint(sample_ids: Iterable[str], labels: Iterable[int], contents: Iterable[int | str]) -> str:
    """Compute the sha256 over N faces in their order.

    The folder that the set is in and the packing of its crops do not enter.

    Args:
        sample_ids: The names of the frames.
        labels: The labels, real 0 and fake 1.
        contents: The crc32 of each face's picture file; for an unreadable file the reason.

    Returns:
        Hexadecimal digits.
    """
    digest = hashlib.sha256()
    for sample_id, label, content in zip(sample_ids, labels, contents, strict=True):
        digest.update(f"{sample_id}\0{label}\0{content}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


MOST = 20  # reasons reported one by one
OTHERS = "other reasons"
_NUMBER = re.compile(r"\d[\d.,]*")
_SOURCE = re.compile(r" \(cut from .*\)$", re.DOTALL)  # which file it was: not another reason


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Count how often each reason occurs, the most frequent first.

    Reasons that differ in numbers alone are one, with N in place of the numbers; the file that a crop came from is left
    out. From the 21st kind on, reasons are summed up as `OTHERS`.
    """
    exact = Counter(_SOURCE.sub("", reason) for reason in reasons)
    alike: dict[str, list[str]] = {}
    for reason in exact:
        alike.setdefault(_NUMBER.sub("N", reason), []).append(reason)
    counts = {
        (wordings[0] if len(wordings) == 1 else form): sum(exact[wording] for wording in wordings)
        for form, wordings in alike.items()
    }
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown, others = dict(ordered[:MOST]), sum(count for _, count in ordered[MOST:])
    return shown | ({OTHERS: others} if others else {})


# The rule that makes one score of a frame's faces. With `largest` there is one face, and its maximum is its score.
AGGREGATIONS: dict[str, Aggregation] = {"largest": MAX, "max": MAX, "mean": MEAN, "person": MAX}


@dataclass(frozen=True)
class LabelledFaceSet(FaceSet):
    """Faces with labels of their own. Nothing about them is random.

    Attributes:
        name: The name of the set; its frames have it as their source.
        faces: The N faces to score.
        frames: All M frames, those without a face included, before they are scored.
        frame_of: The number of the frame that each face is in, int64 (N,).
        how: The rule that makes one score of the faces of a frame.
        kind: As in `DataResult`.
        split: As in `DataResult`.
        fingerprint: As in `DataResult`.
        faces_rule: As in `DataResult`.
        name_faces: Returns the names of the N faces without opening any.
        faceless: Frames that hold no face to score, by number, with the reason.
        uncounted: For each frame whose label is not known, why it has no face; such frames are not in `frames`.
        notes: Lines for the user.
        columns: As in `table`.
        people_of: The number of the person whom each face shows, int64 (N,), where people are followed through a clip
            and the likeliest fake one stands for it; None where all faces count.
        task: The task, which turns outputs into rows.
    """

    name: str
    faces: Sequence[Face]
    frames: ScoredFrames
    frame_of: NDArray[np.int64]
    how: Aggregation
    kind: str
    split: str | None
    fingerprint: str
    faces_rule: str
    name_faces: Callable[[], list[str]]
    faceless: Mapping[int, str] = field(default_factory=dict[int, str])
    uncounted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    columns: Path | None = None
    people_of: NDArray[np.int64] | None = None
    task: DeepfakeTask = field(default_factory=DeepfakeTask, init=False)

    def __len__(self) -> int:
        """Return how many faces there are."""
        return len(self.faces)

    @property
    def table(self) -> Path | None:
        """The CSV of `columns`."""
        return self.columns

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels of the faces, int64 (N,)."""
        return self.frames.labels[self.frame_of]

    @cached_property
    def about(self) -> DataResult:
        """The description of the set before it is read; its counts include frames without a decision."""
        return self._describe({})

    def open(self, input_key: Hashable) -> Samples:
        """Open the faces at the size of a network's input [px], as in validation: margins of 12.5 %, no augmentation.

        The substitute of an unreadable face may have another label than that face: the true labels are those of the
        set.
        """
        side, views = find_input(input_key)
        if views is not None:
            return ViewedFaces(self.faces, image_size=side, views=views)
        return LabelledFaces(self.faces, image_size=side, train=False)

    def to_frames(self, table: Table, unreadable: Mapping[str, str]) -> ScoredFrames:
        """Make the set's M frames with their scores.

        Args:
            table: A model's outputs for the faces.
            unreadable: Faces that could not be read, by name with the reason.

        Returns:
            The frames.
        """
        return self.build_frames(compute_margins(table), unreadable)

    def list_faces(self, table: Table) -> ScoredFrames:
        """Make a row for each face, in the order of the table."""
        of_faces = self.frames.take(self.frame_of)
        return replace(of_faces, margins=compute_margins(table), sample_ids=self.name_faces())

    def describe(self, table: Table, unreadable: Mapping[str, str]) -> DataResult:
        """Describe the set as `about` does, and count frames that could not be read among those without a decision.

        Args:
            table: Not used: the set knows its faces.
            unreadable: Faces that could not be read, by name with the reason.

        Returns:
            Names, counts and notes.
        """
        return self._describe(unreadable)

    def build_frames(
        self, margins: NDArray[np.float64], unreadable: Mapping[str, str], *, chosen: NDArray[np.int64] | None = None
    ) -> ScoredFrames:
        """Make the set's M frames with their scores. A frame without any readable face has no decision.

        Args:
            margins: Log-odds of fake of the faces (n,).
            unreadable: Faces that could not be read, by name with the reason. The margin in the place of such a face is
                that of its substitute, and is not used.
            chosen: The numbers of the n scored faces; None for all faces.

        Returns:
            The frames.

        Raises:
            ValueError: For another number of margins.
        """
        faces = np.arange(len(self)) if chosen is None else chosen
        if np.shape(margins) != faces.shape:
            raise ValueError(f"{self.name}: margins of shape {np.shape(margins)} for {len(faces)} faces")
        is_read = ~np.isin(faces, list(self._find_unreadable(unreadable)))
        if self.people_of is not None:
            is_read[is_read] = self._find_likeliest(np.asarray(margins, np.float64)[is_read], faces[is_read])
        scores, decided = np.zeros(len(self.frames)), np.zeros(len(self.frames), np.bool_)
        some, of_some = np.unique(self.frame_of[faces[is_read]], return_inverse=True)
        if len(some):
            read = np.asarray(margins, np.float64)[is_read]
            scores[some], decided[some] = aggregate(read, of_some.astype(np.int64), self.how), True
        return replace(self.frames, margins=scores, decided=decided)

    def _find_likeliest(self, margins: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Find which of the faces (n,) stand for their frames: those of each clip's likeliest fake person.

        A person's score is the mean over the frames, as predict.py judges; who is seen in fewer than `LEAST_FRAMES` of
        them counts only where everybody is. In a frame without that person all faces stand.
        """
        assert self.people_of is not None
        _, clip_of_frame = number_names(self.frames.clip_ids)
        frames = self.frame_of[faces]
        _, first, person_of = np.unique(self.people_of[faces], return_index=True, return_inverse=True)
        clips, scores = clip_of_frame[frames[first]], aggregate(margins, person_of.astype(np.int64), MEAN)
        is_seen = np.bincount(person_of) >= LEAST_FRAMES
        order = np.lexsort((scores, is_seen, clips))  # the last one of a clip is the likeliest
        is_last = np.append(clips[order][1:] != clips[order][:-1], True)
        is_chosen = np.isin(person_of, order[is_last])
        return is_chosen | ~np.isin(frames, frames[is_chosen])

    def _describe(self, unreadable: Mapping[str, str]) -> DataResult:
        reasons = dict(self.faceless)
        unread = self._find_unreadable(unreadable)
        readable = set(np.delete(self.frame_of, list(unread)).tolist()) if unread else set[int]()
        for face, reason in unread.items():
            frame = int(self.frame_of[face])
            if frame not in readable:
                reasons.setdefault(frame, reason)
        found = build_data_result(
            self.frames,
            name=self.name,
            kind=self.kind,
            split=self.split,
            fingerprint=self.fingerprint,
            faces=len(self.faces),
            faces_rule=self.faces_rule,
            without_decision=count_reasons([*reasons.values(), *self.uncounted]),
            notes=self.notes,
        )
        return found.model_copy(update={"frames": len(self.frames) + len(self.uncounted)})

    def _find_unreadable(self, unreadable: Mapping[str, str]) -> dict[int, str]:
        """Find the numbers of the unreadable faces, with the reasons; names of other sets are passed over."""
        if not unreadable:
            return {}
        return {face: unreadable[name] for face, name in enumerate(self.name_faces()) if name in unreadable}


def build_data_result(frames: ScoredFrames, **more: Any) -> DataResult:
    """Describe a set with these frames: their counts, and `more` fields of `DataResult`."""
    kinds = Counter(frames.manipulations[i] or "unnamed" for i in np.flatnonzero(frames.labels == 1).tolist())
    return DataResult(
        frames=len(frames),
        real=int((frames.labels == 0).sum()),
        fake=int((frames.labels == 1).sum()),
        videos=count_videos(frames),
        people=len(set(frames.groups)),
        manipulations=dict(sorted(kinds.items())),
        **more,
    )


def make_unscored(
    name: str,
    sample_ids: Sequence[str],
    clip_ids: Sequence[str],
    groups: Sequence[str],
    manipulations: Sequence[str],
    labels: NDArray[np.int64],
) -> ScoredFrames:
    """Make the frames of a set before any model has scored them.

    Args:
        name: The name of the set, which becomes the source of its frames.
        sample_ids: As in `ScoredFrames`.
        clip_ids: As in `ScoredFrames`.
        groups: As in `ScoredFrames`.
        manipulations: As in `ScoredFrames`.
        labels: As in `ScoredFrames`.

    Returns:
        Frames of which none is decided.
    """
    none, sources = np.zeros(len(labels)), [name] * len(labels)
    ids, clips, people, kinds = (
        list(map(printable, column)) for column in (sample_ids, clip_ids, groups, manipulations)
    )
    return ScoredFrames(none, labels, ids, clips, people, sources, kinds, none.astype(np.bool_))
