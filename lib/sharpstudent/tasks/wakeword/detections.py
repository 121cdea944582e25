"""The streaming detector: probabilities of windows over time become detections with times.

The probability of a moment is the mean over the last SMOOTHING windows. A detection begins where it reaches the
threshold, and lasts until it is below; its time is that of its peak. For REFRACTORY_SECONDS after a detection began,
none begins.

Legend: W windows of a recording, in the order of time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HOP_SECONDS = 0.1  # from one window to the next
SMOOTHING = 3  # windows
REFRACTORY_SECONDS = 1.0


@dataclass(frozen=True)
class Detection:
    """One detection.

    Attributes:
        start: When the smoothed probability reached the threshold: the end of the window then [s].
        peak: When it was largest [s].
        confidence: Its largest value, 0..1.
    """

    start: float
    peak: float
    confidence: float


@dataclass
class StreamingDetector:
    """Finds detections in windows as they come; its memory does not grow with the stream.

    Attributes:
        threshold: The smoothed probability from which on a word is detected, 0..1.
        duration: The length of a window [s].
    """

    threshold: float
    duration: float
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=SMOOTHING))
    _open: Detection | None = None
    _blocked_until: float = -np.inf

    def add(self, start: float, probability: float) -> Detection | None:
        """Take the next window.

        Args:
            start: When it begins [s].
            probability: Of the wake word, 0..1.

        Returns:
            A detection that has ended with this window.
        """
        self._recent.append(probability)
        smoothed, now = sum(self._recent) / len(self._recent), start + self.duration
        if smoothed < self.threshold:
            return self.finish()
        if self._open is None:
            if now >= self._blocked_until:
                self._open = Detection(now, now, smoothed)
                self._blocked_until = now + REFRACTORY_SECONDS
        elif smoothed > self._open.confidence:
            self._open = Detection(self._open.start, now, smoothed)
        return None

    @property
    def smoothed(self) -> float:
        """The smoothed probability of the last window, 0 before the first."""
        return sum(self._recent) / len(self._recent) if self._recent else 0.0

    def finish(self) -> Detection | None:
        """End the stream; return the detection that was still going on."""
        ended, self._open = self._open, None
        return ended


def detect(
    starts: Sequence[float] | NDArray[np.float64], probabilities: NDArray[np.float64], threshold: float, duration: float
) -> list[Detection]:
    """Find the detections of one whole recording.

    Args:
        starts: When each window begins [s], (W,).
        probabilities: Of the wake word in each (W,), 0..1.
        threshold: As in `StreamingDetector`.
        duration: As in `StreamingDetector`.

    Returns:
        The detections in their order.
    """
    detector = StreamingDetector(threshold, duration)
    found = [detector.add(float(start), float(one)) for start, one in zip(starts, probabilities, strict=True)]
    return [one for one in (*found, detector.finish()) if one is not None]
