"""Finds data whose recording chain gives the word away: a model would learn the microphone, and not the word.

The quietest frames of a recording hold no word, but the noise of its room, microphone and encoder. A random forest is
fitted to their spectra, with speakers held out. Then it is asked how many negatives sound, where nobody speaks, more
like positives than the median positive does: half of them with one chain for all. A share of them suffices, because
only what these lack tells the word. Where next to none do, positives are known before anybody speaks.

Legend: R recordings, M mel bands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.wakeword.clips import HARD, NEGATIVE, POSITIVE, VoiceClip
from sharpstudent.tasks.wakeword.mel import compute_mel
from sharpstudent.tasks.wakeword.recordings import read_recording

MOST_RECORDINGS = 200  # of each class that are read
FEWEST_RECORDINGS, FEWEST_SPEAKERS = 20, 4  # of each class: with fewer nothing can be said
QUIET_SHARE = 0.2  # of the frames
BANDS = 32
FOLDS = 4
TREES = 200
LEAST_ALIKE = 0.1  # of the negatives that must sound more like a positive than the median positive does


@dataclasses.dataclass(frozen=True)
class ChainProbe:
    """What the probe found.

    Attributes:
        auc: How well silence alone tells positives from negatives, .5 for chance.
        alike: The share of the negatives that sound more like a positive than the median positive, where nobody speaks.
        recordings: How many were read.
    """

    auc: float
    alike: float
    recordings: int

    @property
    def gives_away(self) -> bool:
        """Whether the positives are known without the word."""
        return self.alike < LEAST_ALIKE


def probe_chain(clips: Sequence[VoiceClip], sample_rate: int) -> ChainProbe | None:
    """Probe the recordings of people: a machine's voice has no recording chain.

    Args:
        clips: Those of the training split.
        sample_rate: Samples a second.

    Returns:
        What was found; None where there are too few recordings or speakers.
    """
    human = [clip for clip in clips if not clip.is_synthetic]
    positives = _take([clip for clip in human if clip.category == POSITIVE])
    negatives = _take([clip for clip in human if clip.category in (NEGATIVE, HARD)])
    rows, labels, groups = list[NDArray[np.float32]](), list[int](), list[str]()
    for clip in (*positives, *negatives):
        try:
            rows.append(measure_silence(read_recording(clip.path, sample_rate), sample_rate))
        except UnreadableSample:
            continue  # reported where it is a sample
        labels.append(clip.label)
        groups.append(clip.group)
    counts = [len({g for g, one in zip(groups, labels, strict=True) if one == label}) for label in (0, 1)]
    if min(labels.count(0), labels.count(1)) < FEWEST_RECORDINGS or min(counts) < FEWEST_SPEAKERS:
        return None
    return _judge(np.stack(rows), np.array(labels), np.unique(groups, return_inverse=True)[1])


def _take(clips: Sequence[VoiceClip]) -> list[VoiceClip]:
    """Take up to MOST_RECORDINGS, evenly from all."""
    places = np.unique(np.linspace(0, len(clips) - 1, min(MOST_RECORDINGS, len(clips))).round().astype(int))
    return [clips[place] for place in places.tolist()] if clips else []


def measure_silence(sound: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Measure the quietest frames.

    Args:
        sound: float32 (S,).
        sample_rate: Samples a second.

    Returns:
        float32 (3 M,): mean and deviation of these frames in each band, and the lowest value of all frames.
    """
    padded = sound if len(sound) > sample_rate // 4 else np.resize(sound, sample_rate // 4)
    mel = compute_mel(padded, BANDS, sample_rate)[0]
    loudness = mel.mean(axis=0)
    quiet = mel[:, loudness <= np.quantile(loudness, QUIET_SHARE)]
    return np.concatenate([quiet.mean(axis=1), quiet.std(axis=1), mel.min(axis=1)])


def _judge(rows: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.int64]) -> ChainProbe:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    model = RandomForestClassifier(TREES, class_weight="balanced", min_samples_leaf=3, random_state=0)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    score = np.asarray(cross_val_predict(model, rows, labels, groups=groups, cv=folds, method="predict_proba"))[:, 1]
    alike = float((score[labels == 0] >= np.median(score[labels == 1])).mean())
    return ChainProbe(float(roc_auc_score(labels, score)), alike, len(labels))


def refuse_chain(probe: ChainProbe) -> UserError:
    """Build the error for data whose chain gives the word away."""
    return UserError.about(
        "data, split train",
        "has positives and negatives of different recording chains: a model would learn the microphone, not the word",
        expected=f"at least {LEAST_ALIKE:.0%} of the negatives sound more like a positive than the median one",
        got=f"{probe.alike:.1%} of {probe.recordings} recordings; silence alone tells them with AUC {probe.auc:.2f}",
        remedy="record other words with the same microphones, people and rooms as the word; "
        "--set data.check_chain=false trains all the same",
    )
