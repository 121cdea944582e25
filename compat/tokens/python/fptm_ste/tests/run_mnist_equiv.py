"""Trains and tests a TM transformer as the document's command lines print it; see README.md two folders above.

python3 python/fptm_ste/tests/run_mnist_equiv.py --dataset mnist --models transformer --epochs 17
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that the script runs without PYTHONPATH, too

from fptm_ste.flags import BACKENDS, SIZES, add_flags, list_names
from fptm_ste.training import run_model
from sharpstudent.core.errors import exit_codes


def main(argv: Sequence[str] | None = None) -> None:
    """Train, test and save each of the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=[name for name in SIZES if name != "imagenet"], default="mnist")
    parser.add_argument("--models", default="transformer", help=f"with commas between them: {', '.join(BACKENDS)}")
    add_flags(parser)
    read = parser.parse_args(argv)
    for model in list_names(read.models, tuple(BACKENDS), "--models"):
        run_model(read, read.dataset, model)


if __name__ == "__main__":
    with exit_codes():
        main()
