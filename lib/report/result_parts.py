"""The smallest parts of results: figures, and the points of pictures. All numbers are finite.

Legend: P points of a curve, M bins.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Numbers = tuple[float, ...]
Counts = tuple[int, ...]


class Plain(BaseModel):
    """Base of every part: unknown keys refused, immutable, finite numbers only."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FigureResult(Plain):
    """A figure with the ends of its interval, where it has one. note: why it has no value or no interval, or what to
    keep in mind beside it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str | None = None


class CurvePoints(Plain):
    """A curve from the highest threshold down; x, y in 0..1 (P,); thresholds [log-odds] (P,): null where nothing is
    called fake.
    """

    x_name: str
    y_name: str
    x: Numbers
    y: Numbers
    thresholds: tuple[float | None, ...]


class ReliabilityBins(Plain):
    """Of the probability of fake: edges (M + 1,), counts (M,), said and true (M,): null in an empty bin."""

    edges: Numbers
    counts: Counts
    said: tuple[float | None, ...]
    true: tuple[float | None, ...]


class ScoreHistogram(Plain):
    """Samples by their probability of fake: edges (M + 1,) in 0..1, real and fake: counts (M,)."""

    edges: Numbers
    real: Counts
    fake: Counts


class Drawing(Plain):
    """The pictures of one model's scores. level: `frame` or `video_mean`; part: "" for all, or "@SOURCE"."""

    level: str
    part: str
    roc: CurvePoints
    pr: CurvePoints
    det: CurvePoints
    reliability: ReliabilityBins
    histogram: ScoreHistogram
