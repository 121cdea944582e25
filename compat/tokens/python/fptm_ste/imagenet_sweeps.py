"""Sweeps TM transformers over a folder of classes in ImageNet's form: DATA/train/CLASS, DATA/val/CLASS.

    python3 python/fptm_ste/imagenet_sweeps.py DATA --distill-teacher-timm vit_small_patch16_224 --epochs 90

Every combination of --architectures, --backends and --strengths is trained and tested; the same command goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sharpstudent.core.arguments import read_path
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.io import make_folder, write_text_atomically

from fptm_ste.flags import add_flags, list_names, read_numbers
from fptm_ste.training import run_model, say


def main(argv: Sequence[str] | None = None) -> None:
    """Run the sweep and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=read_path, metavar="DATA", help="a folder with train/CLASS and val/CLASS")
    parser.add_argument("--architectures", default="vit,swin")
    parser.add_argument("--backends", default="ste,deeptm")
    parser.add_argument(
        "--strengths", type=read_numbers(float), default=[0.0, 0.5], help="of the specialisation; 0: none"
    )
    parser.add_argument("--out", type=read_path, default=Path("output/imagenet_sweep.json"))
    add_flags(parser)
    read = parser.parse_args(argv)
    if not (read.data / "train").is_dir():
        raise UserError.about(str(read.data), "is no ImageFolder", "train/CLASS/*.JPEG and val/CLASS/*.JPEG in it")
    read.data_root = read.data
    archs = list_names(read.architectures, ("vit", "swin"), "--architectures")
    backends = list_names(read.backends, ("ste", "deeptm"), "--backends")
    rows: list[dict[str, Any]] = []
    for arch, backend, strength in itertools.product(archs, backends, read.strengths):
        read.transformer_arch, read.transformer_backend = arch, backend
        read.transformer_clause_specialize = strength > 0
        read.transformer_clause_specialize_strength = strength if strength > 0 else None
        rows.append(
            {"arch": arch, "backend": backend, "strength": strength, **run_model(read, "imagenet", "transformer")}
        )
        make_folder(read.out.parent)
        write_text_atomically(read.out, json.dumps(rows, indent=2) + "\n")
    for row in sorted(rows, key=lambda row: -row["test_acc"]):
        say(f"{row['arch']:5} {row['backend']:7} strength {row['strength']:.1f}: test_acc {row['test_acc']:.4f}")
    say(f"also in {read.out}")


if __name__ == "__main__":
    with exit_codes():
        main()
