"""What a model says of the validation items of a run, as scored frames, and the figures that every epoch is told by.

Legend: N scores, M frames.
"""

from __future__ import annotations

from collections.abc import Sequence

from sharpstudent.data.splits import find_groups
from sharpstudent.evaluation.task import Scores
from sharpstudent.metrics.aggregation import MEAN, aggregate_clips
from sharpstudent.metrics.binary import compute_accuracy, compute_auc, compute_average_precision, compute_eer
from sharpstudent.metrics.tables import ScoredFrames

BLEND, FAKE = "self-blend", "fake"  # kinds of fake


def build_frames(scores: Scores, *, source: str, is_blended: bool) -> ScoredFrames:
    """One row a picture, M of N: a picture that stood in for an unreadable one is there already, and counts once.

    source: the name of all of them; is_blended: the fakes are blends of the reals. Such fakes of a clip are a clip of
    their own, `CLIP#blend`; labelled ones too, `CLIP#fake`, where the clip has reals. Groups are people, and those
    whose faces are seen in one clip are one group.
    """
    first: dict[str, int] = {}
    for row, name in enumerate(scores.sample_ids):
        first.setdefault(name, row)
    rows = list(first.values())
    labels = scores.labels[rows]
    clips, people = ([names[row] for row in rows] for names in (scores.clip_ids, scores.identities))
    has_reals = {clip for clip, label in zip(clips, labels.tolist(), strict=True) if label == 0}
    mark = "#blend" if is_blended else "#fake"
    is_own = [label == 1 and (is_blended or clip in has_reals) for clip, label in zip(clips, labels, strict=True)]
    return ScoredFrames(
        margins=scores.margin[rows],
        labels=labels,
        sample_ids=list(first),
        clip_ids=[f"{clip}{mark}" if own else clip for clip, own in zip(clips, is_own, strict=True)],
        groups=_join_people(clips, people),
        sources=[source] * len(rows),
        manipulations=[(BLEND if is_blended else FAKE) if label == 1 else "" for label in labels.tolist()],
    )


def compute_figures_of_validation(scores: Scores, frames: ScoredFrames) -> dict[str, float]:
    """Of pictures: `val_auc`, `val_accuracy` at a probability of one half, `val_ap`, `val_eer`; of clips, by the mean
    probability of their frames: `val_video_auc`. frames: what `build_frames` made of the scores.

    Raises MetricError, naming samples, for scores that are not finite and for one class only.
    """
    margins, told = scores.margin, {"labels": scores.labels, "sample_ids": scores.sample_ids}
    auc = compute_auc(margins, **told)  # first: it names what is wrong with the scores
    clips = aggregate_clips(frames.margins, frames.labels, frames.clip_ids, MEAN, sample_ids=frames.sample_ids)
    return {
        "val_auc": auc,
        "val_accuracy": compute_accuracy(scores.fake_probability, scores.labels, threshold=0.5),
        "val_ap": compute_average_precision(margins, **told),
        "val_eer": compute_eer(margins, **told),
        "val_video_auc": compute_auc(clips.margins, clips.labels, sample_ids=clips.clip_ids),
    }


def _join_people(clips: Sequence[str], people: Sequence[str]) -> list[str]:
    """The group of each row (M,): a bystander's name is another one than that of the person whom the clip shows."""
    of_clip: dict[str, dict[str, None]] = {}
    for clip, person in zip(clips, people, strict=True):
        of_clip.setdefault(clip, {})[person] = None
    groups = dict(zip(of_clip, find_groups([tuple(names) for names in of_clip.values()]), strict=True))
    return [groups[clip] for clip in clips]
