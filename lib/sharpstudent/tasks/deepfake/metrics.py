"""The metrics of the deepfake task, of pictures and of clips; scikit-learn is imported where it is used.

Legend: N rows of a table with `logits` (N, 2), `label` (real 0, fake 1), `clip`, `manipulation`, `group` and `id`. A
margin is logits[:, 1] - logits[:, 0], the log-odds of fake: it ranks as the probability does, without rounding to ties
near 0 and 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpstudent.core.types import Table
from sharpstudent.metrics.metric import Counts, Metric, make_binary_metric, make_mean_metric, repeat_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def compute_margins(table: Table) -> NDArray[np.float64]:
    """Compute the log-odds of fake, (N,)."""
    import numpy as np

    logits = table["logits"]
    return logits[:, 1].astype(np.float64) - logits[:, 0].astype(np.float64)


def compute_probabilities(margins: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """Compute the probabilities of log-odds, (N,).

    Args:
        margins: The log-odds of fake, (N,).
        temperature: What they are divided by first: 1 for the probabilities as the model gives them, the stored one
            for calibrated probabilities (Guo et al. 2017).

    Returns:
        The probabilities of fake, (N,).
    """
    import numpy as np

    return 0.5 * (1.0 + np.tanh(0.5 * margins / temperature))


def compute_fake_probability(table: Table) -> NDArray[np.float64]:
    """Compute the probability of fake, (N,): the softmax of two classes."""
    return compute_probabilities(compute_margins(table))


def _find_right(table: Table) -> NDArray[np.float64]:
    """Find which rows are classified correctly at a probability of one half: 1 for these, else 0 (N,)."""
    return ((compute_fake_probability(table) >= 0.5) == (table["label"] == 1)).astype("float64")


def _compute_video_auc(table: Table, counts: Counts) -> float:
    """Compute the AUC of videos by the mean probability of their frames; a clip is drawn as often as its frames are.

    NaN where no clip has two pictures: stills are no videos.
    """
    import numpy as np

    from sharpstudent.metrics.binary import compute_auc
    from sharpstudent.metrics.checks import number_names
    from sharpstudent.tasks.deepfake.evaluation.frames import MEAN, aggregate, build_frames, count_videos

    frames = build_frames(repeat_rows(table, np.minimum(counts, 1)))
    names, clip_of = number_names(frames.clip_ids)
    _, first = np.unique(clip_of, return_index=True)
    if len(np.unique(frames.labels)) < 2 or not count_videos(frames):
        return float("nan")
    times = dict(zip(table["id"].tolist(), counts.tolist(), strict=True))
    drawn = np.repeat(np.arange(len(names)), [times[frames.sample_ids[row]] for row in first.tolist()])
    margins, labels = aggregate(frames.margins, clip_of, MEAN), frames.labels[first]
    return compute_auc(margins[drawn], labels[drawn], sample_ids=[names[clip] for clip in drawn.tolist()])


# In the order of the columns of metrics.csv; the first one selects.
METRICS: dict[str, Metric] = {
    "auc": make_binary_metric("auc", compute_margins),
    "accuracy": make_mean_metric(_find_right, chance=0.5, perfect=1.0, format=".1%"),
    "ap": make_binary_metric("average_precision", compute_margins, title="AP"),
    "eer": make_binary_metric("eer", compute_margins),
    "video_auc": Metric(
        _compute_video_auc,
        **{"chance": 0.5, "perfect": 1.0, "title": "video AUC", "strata": "label", "bounds": (0.0, 1.0)},
    ),
}
