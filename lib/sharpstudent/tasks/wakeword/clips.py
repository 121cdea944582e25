"""A recording with its label, speaker and split, and the checks of a whole data set before anything is learnt from it.

A category is one of the five of the splits' form: positive (the word), negative, hard_negative (sounds like the word),
background (mixed into windows, and a negative of its own), rirs (room responses).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sharpstudent.core.errors import Problem, ProblemList, UserError

POSITIVE, NEGATIVE, HARD, BACKGROUND, ROOMS = "positive", "negative", "hard_negative", "background", "rirs"
CATEGORIES = (POSITIVE, NEGATIVE, HARD, BACKGROUND, ROOMS)
SPLITS = ("train", "validation", "test")
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class VoiceClip:
    """One recording.

    Attributes:
        path: The file.
        name: Its name for users, below the folder of the data.
        category: One of CATEGORIES.
        group: The speaker, or a cluster of speakers; for background its source.
        seconds: Length.
        rate: Samples a second in the file.
        split: train, validation, test, or another name that the data has.
        word: What is said, where the data says it.
        is_synthetic: Whether a machine speaks.
        features: The file of its mel spectrogram, where the data has one.
    """

    path: Path
    name: str
    category: str
    group: str
    seconds: float
    rate: int
    split: str
    word: str = ""
    is_synthetic: bool = False
    features: Path | None = None

    @property
    def label(self) -> int:
        """1 for the wake word, else 0."""
        return int(self.category == POSITIVE)


@dataclass(frozen=True)
class FoundClips:
    """All recordings of a data set.

    Attributes:
        clips: The recordings of all splits.
        layout: How they lie on disk.
        files: Files that say what is what.
        notes: Lines for the user.
    """

    clips: tuple[VoiceClip, ...]
    layout: str
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def take(self, split: str) -> tuple[VoiceClip, ...]:
        """Return the recordings of a split; raise UserError for one that the data does not have."""
        found = tuple(clip for clip in self.clips if clip.split == split)
        if not found:
            known = ", ".join(sorted({clip.split for clip in self.clips}))
            raise UserError.about("data", f"has no split {split!r}", expected=known, remedy="name one of these splits")
        return found


def choose_word(found: FoundClips, word: str) -> FoundClips:
    """Make one word the positive; every other word becomes negative, and sound-alikes of other words, too.

    Args:
        found: Recordings that name their words.
        word: The word; "" to leave the categories as they are.

    Returns:
        The recordings with their categories.

    Raises:
        UserError: For a word that nobody says.
    """
    if not word or found.layout == "speech_commands":
        return found
    if all(clip.word == word for clip in found.clips if clip.category == POSITIVE):
        return found
    known = Counter(clip.word for clip in found.clips if clip.word and clip.category not in (BACKGROUND, ROOMS))
    if word not in known:
        shown = ", ".join(f"{name} ({count})" for name, count in known.most_common(SHOWN))
        raise UserError.about(
            "data.word", f"is {word!r}, which no recording says", expected=shown or "recordings with a word", got=word,
            remedy="name one of the words, or leave data.word out",
        )  # fmt: skip
    speech = (POSITIVE, NEGATIVE, HARD)
    clips = (
        replace(clip, category=POSITIVE if clip.word == word else NEGATIVE) if clip.category in speech else clip
        for clip in found.clips
    )
    return replace(found, clips=tuple(clips))


def check_clips(found: FoundClips, *, allow_shared: bool) -> None:
    """Check what a split, a group and a sample rate may be.

    Args:
        found: All recordings.
        allow_shared: Whether a speaker may be in two splits.

    Raises:
        UserError: With all problems: a speaker in two splits, several sample rates, a split without positives or
            without negatives.
    """
    problems = ProblemList()
    for problem in (*_check_groups(found.clips, allow_shared), *_check_rates(found.clips), *_check_labels(found.clips)):
        problems.add(problem)
    problems.raise_if_any()


def _check_groups(clips: Sequence[VoiceClip], allow_shared: bool) -> Iterable[Problem]:
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.category != ROOMS:
            splits[clip.group].add(clip.split)
    shared = sorted(group for group, found in splits.items() if len(found) > 1)
    if shared and not allow_shared:
        group = shared[0]
        files = [next(clip.name for clip in clips if (clip.group, clip.split) == (group, split)) for split in
                 sorted(splits[group])]  # fmt: skip
        yield Problem(
            "data",
            f"has {len(shared)} speakers in more than one split: the model would be tested on voices that it knows",
            expected="every speaker (group) in one split",
            got=f"{', '.join(shared[:SHOWN])}; {group} in {' and in '.join(files)}",
            remedy="move all recordings of a speaker to one split, or add --allow shared-people to the command",
        )


def _check_rates(clips: Sequence[VoiceClip]) -> Iterable[Problem]:
    rates: defaultdict[int, list[VoiceClip]] = defaultdict(list)
    for clip in clips:
        if clip.rate and clip.category not in (ROOMS, BACKGROUND):  # neither is ever a positive
            rates[clip.rate].append(clip)
    if len(rates) > 1:
        shown = [
            f"{rate} Hz: {len(found)} recordings, {sum(clip.label for clip in found)} positive, such as {found[0].name}"
            for rate, found in sorted(rates.items())
        ]
        yield Problem(
            "data",
            "has recordings of several sample rates: missing high frequencies would be learnt, not the word",
            expected="one sample rate for all speech",
            got="\n".join(shown),
            remedy="record again, or bring all to the lowest rate and back with the same program",
        )


def _check_labels(clips: Sequence[VoiceClip]) -> Iterable[Problem]:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        counts[clip.split][clip.category] += 1
    for split in SPLITS[:2]:
        found = counts[split]
        negatives = found[NEGATIVE] + found[HARD] + found[BACKGROUND]
        if not found[POSITIVE] or not negatives:
            missing = "positives" if not found[POSITIVE] else "negatives"
            yield Problem(
                f"data, split {split}",
                f"has no {missing}",
                expected="recordings with the word and recordings without it, of at least one speaker each",
                got=", ".join(f"{count} {category}" for category, count in found.items()) or "nothing",
                remedy="add some, or move some speakers from another split",
            )


def describe_split(split: str, clips: Sequence[VoiceClip]) -> str:
    """Describe the recordings of a split in one line."""
    counts: Mapping[str, int] = Counter(clip.category for clip in clips)
    parts = [f"{counts[category]} {category.replace('_', ' ')}" for category in CATEGORIES if counts.get(category)]
    speakers = len({clip.group for clip in clips if clip.category not in (BACKGROUND, ROOMS)})
    minutes = sum(clip.seconds for clip in clips if clip.category != ROOMS) / 60
    spoken = " (some of them synthetic voices)" if any(clip.is_synthetic for clip in clips) else ""
    return f"{split}: {', '.join(parts)}; {speakers} groups of speakers{spoken}, {minutes:.1f} minutes"
