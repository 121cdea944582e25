"""Train a gaze model on GazeFollow, alone or distilled, by the flags of the Gaze-LLE documents.

python scripts/train_gazefollow.py --model_name gazelle_dinov3_vit_tiny --distill_weight 0.3
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gaze_flags import Script, run
from sharpstudent.core.errors import exit_codes

GAZEFOLLOW = Script(
    name="train_gazefollow.py",
    layout="gazefollow",
    model="gazelle_dinov3_vit_tiny",
    data_path="data/gazefollow_extended",
    lr=1e-3,
    epochs=15,
    metric="min_l2",
)


def main() -> None:
    """Train."""
    run(GAZEFOLLOW, sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
