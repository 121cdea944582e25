"""A data set to evaluate models on: its faces, the frames that they are in as columns, what is known of it, and reasons
why frames have no decision, counted so that a report can show them.

Legend: M frames, N faces.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sharpstudent.data.dataset import Samples
from sharpstudent.tasks.deepfake.evaluation.frames import MAX, MEAN, Aggregation, ScoredFrames, aggregate
from sharpstudent.tasks.deepfake.report.results import DataResult
from sharpstudent.tasks.deepfake.samples import LabelledFaces
from sharpstudent.tasks.deepfake.sources.face import Face


@dataclass(frozen=True)
class FrameColumns:
    """M of each. sample_ids: the frames' names, each once; clip_ids: their videos; groups: the people in them, whom
    intervals are made over; manipulations: the kind of fake, "" of reals; labels: int64, real 0, fake 1. faceless:
    frames that hold no face to judge, by number, with the reason.
    """

    sample_ids: list[str]
    clip_ids: list[str]
    groups: list[str]
    manipulations: list[str]
    labels: NDArray[np.int64]
    faceless: Mapping[int, str] = field(default_factory=dict[int, str])

    def __len__(self) -> int:
        return len(self.sample_ids)

    def take(self, frames: NDArray[np.int64]) -> FrameColumns:
        """Some of the frames, by number, in the order given."""
        chosen = frames.tolist()
        texts = (self.sample_ids, self.clip_ids, self.groups, self.manipulations)
        return FrameColumns(
            *([column[i] for i in chosen] for column in texts),
            labels=self.labels[frames],
            faceless={new: self.faceless[old] for new, old in enumerate(chosen) if old in self.faceless},
        )


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
class EvaluationSet:
    """name: the `source` of its frames; faces: N to judge; frames: all M, with those that hold no face; frame_of: the
    frame that each face is in, int64 (N,); how: makes a frame's faces one score; about: the set before it is read.
    name_faces: gives the N names that the faces have, without opening any; uncounted: reasons of frames whose label
    nobody knows, which are no part of `frames`.
    """

    name: str
    faces: Sequence[Face]
    frames: FrameColumns
    frame_of: NDArray[np.int64]
    how: Aggregation
    about: DataResult
    name_faces: Callable[[], list[str]]
    uncounted: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many faces there are."""
        return len(self.faces)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of the faces, int64 (N,)."""
        return self.frames.labels[self.frame_of]

    def list_faces_of(self, frame: int) -> list[int]:
        """The faces of one frame, 0..M-1; none of one without a face."""
        return np.flatnonzero(self.frame_of == frame).tolist()

    def build_source(self, image_size: int) -> Samples:
        """N samples of one picture each, as in validation: no augmentation, margins of 12.5 %. A face that stands
        in for an unreadable one may have another label than it: the true labels are those of the set.
        """
        return LabelledFaces(self.faces, image_size=image_size, train=False)

    def build_frames(self, margins: NDArray[np.float64], unreadable: Mapping[str, str]) -> ScoredFrames:
        """The set's M frames with their scores. margins: log-odds of fake of the faces (N,); unreadable: what the
        loader could not read, by name, with the reason: another face's score stands in its place and is not taken.

        A frame without any readable face has no decision. Raises ValueError for another number of margins.
        """
        if np.shape(margins) != (len(self.faces),):
            raise ValueError(f"{self.name}: margins of shape {np.shape(margins)} for {len(self.faces)} faces")
        is_read = np.ones(len(self.faces), np.bool_)
        is_read[list(self._find_unreadable(unreadable))] = False
        scores, decided = np.zeros(len(self.frames)), np.zeros(len(self.frames), np.bool_)
        some, of_some = np.unique(self.frame_of[is_read], return_inverse=True)
        if len(some):
            read = np.asarray(margins, np.float64)[is_read]
            scores[some], decided[some] = aggregate(read, of_some.astype(np.int64), self.how), True
        frames = self.frames
        return ScoredFrames(
            margins=scores,
            labels=frames.labels,
            sample_ids=frames.sample_ids,
            clip_ids=frames.clip_ids,
            groups=frames.groups,
            sources=[self.name] * len(frames),
            manipulations=frames.manipulations,
            decided=decided,
        )

    def describe(self, unreadable: Mapping[str, str]) -> DataResult:
        """`about`, with the frames that could not be read among those without a decision."""
        unread = self._find_unreadable(unreadable)
        is_read = np.ones(len(self.faces), np.bool_)
        is_read[list(unread)] = False
        reasons = dict(self.frames.faceless)
        readable = set(self.frame_of[is_read].tolist()) if unread else set[int]()
        for face, reason in unread.items():
            frame = int(self.frame_of[face])
            if frame not in readable:
                reasons.setdefault(frame, reason)
        counts = count_reasons([*reasons.values(), *self.uncounted])
        return self.about.model_copy(update={"without_decision": counts})

    def take(self, chosen: NDArray[np.int64]) -> EvaluationSet:
        """Some of the faces, by number, and the frames that they are in; frames without a face are left out, and
        `about` stays that of the whole set.
        """
        kept, frame_of = np.unique(self.frame_of[chosen], return_inverse=True)
        numbers = chosen.tolist()

        def name_chosen() -> list[str]:
            names = self.name_faces()
            return [names[i] for i in numbers]

        return replace(
            self,
            faces=[self.faces[i] for i in numbers],
            frames=self.frames.take(kept),
            frame_of=frame_of.astype(np.int64),
            name_faces=name_chosen,
            uncounted=(),
        )

    def _find_unreadable(self, unreadable: Mapping[str, str]) -> dict[int, str]:
        """Which faces are meant, in their order; names of other sets are passed over."""
        if not unreadable:
            return {}
        return {face: unreadable[name] for face, name in enumerate(self.name_faces()) if name in unreadable}


def build_set(
    name: str,
    faces: Sequence[Face],
    frames: FrameColumns,
    frame_of: NDArray[np.int64],
    how: Aggregation,
    *,
    kind: str,
    split: str | None,
    fingerprint: str,
    faces_rule: str,
    name_faces: Callable[[], list[str]],
    uncounted: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> EvaluationSet:
    """The set with its counts: `frames` of about are all, with and without a decision."""
    kinds = Counter(frames.manipulations[i] or "unnamed" for i in np.flatnonzero(frames.labels == 1).tolist())
    about = DataResult(
        name=name,
        kind=kind,
        split=split,
        fingerprint=fingerprint,
        frames=len(frames) + len(uncounted),
        faces=len(faces),
        real=int((frames.labels == 0).sum()),
        fake=int((frames.labels == 1).sum()),
        videos=len(set(frames.clip_ids)),
        people=len(set(frames.groups)),
        faces_rule=faces_rule,
        without_decision=count_reasons([*frames.faceless.values(), *uncounted]),
        manipulations=dict(sorted(kinds.items())),
        notes=notes,
    )
    return EvaluationSet(name, faces, frames, frame_of, how, about, name_faces, uncounted)
