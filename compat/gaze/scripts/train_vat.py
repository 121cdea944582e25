"""Train a gaze model on VideoAttentionTarget, alone or distilled, by the flags of the Gaze-LLE documents.

python scripts/train_vat.py --model gazelle_dinov3_vit_tinyplus --distill_weight 0.3
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gaze_flags import Script, run
from sharpstudent.core.errors import exit_codes

VAT = Script(
    name="train_vat.py",
    layout="vat",
    model="gazelle_dinov3_vit_tinyplus",
    data_path="data/videoattentiontarget",
    lr=1e-5,
    epochs=8,
    metric="inout_ap",
)


def main() -> None:
    """Train."""
    run(VAT, sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
