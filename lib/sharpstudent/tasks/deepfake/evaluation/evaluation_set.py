"""A data set to evaluate models on: its faces, the frames that they are in as columns, what is known of it, and reasons
why frames have no decision, counted so that a report can show them.

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.types import Table
from sharpstudent.data.dataset import Samples
from sharpstudent.evaluation.tables import EvalSet
from sharpstudent.tasks.deepfake.evaluation.frames import MAX, MEAN, Aggregation, ScoredFrames, aggregate
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.report.results import DataResult
from sharpstudent.tasks.deepfake.samples import LabelledFaces
from sharpstudent.tasks.deepfake.sources.face import Face
from sharpstudent.tasks.deepfake.task import DeepfakeTask


class FaceSet(EvalSet):
    """A data set of faces: what a model says of it becomes frames with a score each."""

    task: DeepfakeTask

    @abstractmethod
    def to_frames(self, table: Table, unreadable: Mapping[str, str]) -> ScoredFrames:
        """The frames with the scores that a model gave them.

        Args:
            table: What the model said of the set's faces, in their order.
            unreadable: Faces that could not be read, by name with the reason.
        """

    @abstractmethod
    def list_faces(self, table: Table) -> ScoredFrames:
        """A row for each row of the table: the face, by the name that a user knows, in place of the frame."""

    @abstractmethod
    def describe(self, table: Table, unreadable: Mapping[str, str]) -> DataResult:
        """What a report tells of the set; the arguments are those of `to_frames`, of any of the models."""


def name_frame(clip_id: str, frame_index: int) -> str:
    """A frame's name in its set; a photo is frame 0 of itself."""
    return f"{clip_id}/{frame_index:06d}"


def compute_fingerprint(sample_ids: Iterable[str], labels: Iterable[int], contents: Iterable[int | str]) -> str:
    """sha256 over N faces in their order. contents: the crc32 of each face's picture file, or why there is none.

    Folders above the set and the packing of its crops do not enter.
    """
    digest = hashlib.sha256()
    for sample_id, label, content in zip(sample_ids, labels, contents, strict=True):
        digest.update(f"{sample_id}\0{label}\0{content}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


MOST = 20  # reasons told one by one
OTHERS = "other reasons"
_NUMBER = re.compile(r"\d[\d.,]*")
_SOURCE = re.compile(r" \(cut from .*\)$", re.DOTALL)  # which file it was: not another reason


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason came, the most frequent first. Those that differ in numbers alone are one, with N for the
    numbers; what a crop was cut from is left out; from the 21st kind on they are `OTHERS`.
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
    told, others = dict(ordered[:MOST]), sum(count for _, count in ordered[MOST:])
    return told | ({OTHERS: others} if others else {})


# How the faces of a frame are made one score. The largest is alone in its frame, and a maximum leaves it as it is.
AGGREGATIONS: dict[str, Aggregation] = {"largest": MAX, "max": MAX, "mean": MEAN}


@dataclass(frozen=True)
class EvaluationSet(FaceSet):
    """Faces with labels of their own; nothing about them is random.

    name: the `source` of its frames; faces: N to judge; frames: all M, with those that hold no face, none of them
    scored; frame_of: the frame that each face is in, int64 (N,); how: makes a frame's faces one score; kind, split,
    fingerprint, faces_rule, notes: as in `DataResult`; name_faces: gives the N names that the faces have, without
    opening any. faceless: frames that hold no face to judge, by number, with the reason; uncounted: reasons of frames
    whose label nobody knows, which are no part of `frames`.
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
    task: DeepfakeTask = field(default_factory=DeepfakeTask, init=False)

    def __len__(self) -> int:
        """How many faces there are."""
        return len(self.faces)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of the faces, int64 (N,)."""
        return self.frames.labels[self.frame_of]

    @cached_property
    def about(self) -> DataResult:
        """The set before it is read: its counts are of all frames, with and without a decision."""
        return self._describe({})

    def open(self, input_key: Hashable) -> Samples:
        """N samples of one picture each, at the size of a network's input [px], as in validation: no augmentation,
        margins of 12.5 %. A face that stands in for an unreadable one may have another label than it: the true labels
        are those of the set.
        """
        assert isinstance(input_key, int)
        return LabelledFaces(self.faces, image_size=input_key, train=False)

    def to_frames(self, table: Table, unreadable: Mapping[str, str]) -> ScoredFrames:
        return self.build_frames(compute_margins(table), unreadable)

    def list_faces(self, table: Table) -> ScoredFrames:
        of_faces = self.frames.take(self.frame_of)
        return replace(of_faces, margins=compute_margins(table), sample_ids=self.name_faces())

    def describe(self, table: Table, unreadable: Mapping[str, str]) -> DataResult:
        """`about`, with the frames that could not be read among those without a decision."""
        return self._describe(unreadable)

    def build_frames(
        self, margins: NDArray[np.float64], unreadable: Mapping[str, str], *, chosen: NDArray[np.int64] | None = None
    ) -> ScoredFrames:
        """The set's M frames with their scores; a frame without any readable face has no decision.

        Args:
            margins: Log-odds of fake of the faces (n,).
            unreadable: What the loader could not read, by name, with the reason: another face's score stands in its
                place and is not taken.
            chosen: The numbers of the n faces, where they are not all.

        Raises:
            ValueError: For another number of margins.
        """
        faces = np.arange(len(self)) if chosen is None else chosen
        if np.shape(margins) != faces.shape:
            raise ValueError(f"{self.name}: margins of shape {np.shape(margins)} for {len(faces)} faces")
        is_read = ~np.isin(faces, list(self._find_unreadable(unreadable)))
        scores, decided = np.zeros(len(self.frames)), np.zeros(len(self.frames), np.bool_)
        some, of_some = np.unique(self.frame_of[faces[is_read]], return_inverse=True)
        if len(some):
            read = np.asarray(margins, np.float64)[is_read]
            scores[some], decided[some] = aggregate(read, of_some.astype(np.int64), self.how), True
        return replace(self.frames, margins=scores, decided=decided)

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
        """Which faces are meant, in their order; names of other sets are passed over."""
        if not unreadable:
            return {}
        return {face: unreadable[name] for face, name in enumerate(self.name_faces()) if name in unreadable}


def build_data_result(frames: ScoredFrames, **more: Any) -> DataResult:
    """What a report tells of a set with these frames: their counts, and `more` fields of `DataResult`."""
    kinds = Counter(frames.manipulations[i] or "unnamed" for i in np.flatnonzero(frames.labels == 1).tolist())
    return DataResult(
        frames=len(frames),
        real=int((frames.labels == 0).sum()),
        fake=int((frames.labels == 1).sum()),
        videos=len(set(frames.clip_ids)),
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
    """The frames of the set of this name before any model has seen them; the columns are those of `ScoredFrames`."""
    none, sources = np.zeros(len(labels)), [name] * len(labels)
    return ScoredFrames(none, labels, sample_ids, clip_ids, groups, sources, manipulations, none.astype(np.bool_))
