"""The data sets of an evaluation under the names that the verdict uses, and access to the metrics of each."""

from __future__ import annotations

from dataclasses import dataclass

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.naming import clean_name
from sharpstudent.report.results import MetricValue
from sharpstudent.report.sentences import describe_estimate, turn_pair
from sharpstudent.tasks.deepfake.report.results import ComparisonResult, DataResult, ModelResult, Results

CHANCE = 0.5  # AUC
GROUP = "person"  # what intervals are over


def describe_auc(estimate: MetricValue, *more: str) -> str:
    """Format an AUC with its interval: `.902 [.880, .927] (336 frames of 42 people)`.

    Args:
        estimate: The AUC.
        more: Texts that follow the interval in the brackets.

    Returns:
        The text.
    """
    return describe_estimate(estimate, *more, references=(CHANCE, 1.0))


VALIDATION = ("val", "validation")


@dataclass(frozen=True)
class ReportSet:
    """A data set of the results.

    Attributes:
        name: The name of the source; "" where metrics have no part.
        is_alone: Whether it is the only set, so that metrics without a set's name are its own.
        about: The description of the set in the results.
    """

    name: str
    is_alone: bool
    about: DataResult | None = None

    @property
    def title(self) -> str:
        """The name of the set in sentences."""
        return clean_name(self.name) if self.name else "the evaluated data"

    @property
    def is_validation(self) -> bool:
        """Whether it selected the checkpoint or the thresholds."""
        return self.about is not None and (self.about.kind == "validation" or self.about.split in VALIDATION)

    def find(self, model: ModelResult, metric: str) -> MetricValue | None:
        """Find a metric of this set.

        Args:
            model: The model, one of the results'.
            metric: The name of the metric without a part.

        Returns:
            The estimate, None where it is absent.
        """
        found = model.figures.get(f"{metric}@{self.name}") if self.name else None
        return model.figures.get(metric) if found is None and self.is_alone else found

    def count(self, model: ModelResult, metric: str) -> int | None:
        """Find a count of this set.

        Args:
            model: The model, one of the results'.
            metric: The name of the metric without a part.

        Returns:
            The count, None where it is absent.
        """
        found = self.find(model, metric)
        return None if found is None or found.value is None else round(found.value)

    def has_videos(self, model: ModelResult) -> bool:
        """Whether any video has more than one frame; else video metrics are those of frames."""
        frames, videos = self.count(model, "frame_count"), self.count(model, "video_count")
        return frames is None or videos is None or videos < frames

    def list_kinds(self, model: ModelResult) -> dict[str, MetricValue]:
        """List the frame AUC of each kind of fake that has one."""
        start = f"frame_auc@{self.name}/"
        found = {name.removeprefix(start): one for name, one in model.figures.items() if name.startswith(start)}
        return {kind: value for kind, value in found.items() if value.value is not None}

    def describe_size(self, model: ModelResult, unit: str = "frame") -> str:
        """Say what a metric is computed over: `336 frames of 42 people`.

        Args:
            model: The model, one of the results'.
            unit: `frame` or `video`.

        Returns:
            The text, "" where nothing was counted.
        """
        samples, people = self.count(model, f"{unit}_count"), self.count(model, "people_count")
        if samples is None and self.about is not None:
            samples = self.about.videos if unit == "video" else self.about.real + self.about.fake
        if people is None and self.about is not None:
            people = self.about.people
        if samples is None:
            return ""
        return f"{samples:,} {unit}s" + ("" if people is None else f" of {format_count_of(people, 'person')}")


def list_sets(results: Results) -> list[ReportSet]:
    """List the sets, validation last: those of the results, else those in names of metrics, else one without a name."""
    abouts = {about.name: about for about in results.data}
    names = list(abouts) or _read_sources(results)
    if not names:
        return [ReportSet("", is_alone=True)]
    sets = [ReportSet(name, len(names) == 1, abouts.get(name)) for name in names]
    return sorted(sets, key=lambda one: one.is_validation)


def exclude_validation(sets: list[ReportSet]) -> list[ReportSet]:
    """Return the sets that selected nothing; all sets where every one selected something."""
    return [one for one in sets if not one.is_validation] or sets


def find_comparison(
    results: Results, a: ModelResult, b: ModelResult, metric: str, dataset: ReportSet
) -> ComparisonResult | None:
    """Find the comparison of two models on a set, whichever way round it was made.

    Args:
        results: The results of the evaluation.
        a: The first model.
        b: The second model.
        metric: The name of the metric without a part.
        dataset: One of the sets.

    Returns:
        The comparison, with the difference a minus b; None where there is none.
    """
    names = [f"{metric}@{dataset.name}", *([metric] if dataset.is_alone else [])]
    for name in names:
        for one in results.comparisons:
            if one.figure == name and (one.a, one.b) == (a.name, b.name):
                return one
            if one.figure == name and (one.a, one.b) == (b.name, a.name):
                return turn_pair(one)
    return None


def _read_sources(results: Results) -> list[str]:
    parts = (name.partition("@")[2].partition("/")[0] for model in results.models for name in model.figures)
    return list(dict.fromkeys(part for part in parts if part))
