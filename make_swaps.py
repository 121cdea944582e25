"""Turn real photos of people into classical face swaps, for evaluation: warp, colour transfer, Poisson blending.

python make_swaps.py PEOPLE DEST        PEOPLE: ROOT/PERSON/*.jpg, or a CSV file with path,person[,split]

DEST gets real/ and fake/ (face crops, one folder a person) and swaps.csv. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sharpstudent.core.errors import Problem, UserError, exit_codes
from sharpstudent.tasks.deepfake.swaps.people import CHOICES, SwapRequest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", metavar="PEOPLE", type=Path, help="folder or CSV file of real photos by person")
    parser.add_argument("dest", metavar="DEST", type=Path, help="a new folder, or one that this command has begun")
    parser.add_argument("--per-face", type=int, default=1, help="fakes for each real face (1)")
    parser.add_argument("--seed", type=int, default=0, help="draws the partners among the nearest people (0)")
    parser.add_argument("--split", choices=CHOICES, default="all", help="swap these people only (all)")
    parser.add_argument("--image-size", type=int, default=380, help="side of the pictures in pixels (380)")
    parser.add_argument("--picture", choices=("png", "jpg"), default="png", help="jpg has quality 95 (png)")
    held_out = parser.add_argument_group("people without a split of their own, as data_source photos holds them out")
    held_out.add_argument("--validation-share", type=float, default=0.2, help="share of the people (0.2)")
    held_out.add_argument("--split-seed", type=int, default=0, help="who they are (0)")
    request = SwapRequest(**vars(parser.parse_args()))
    _check(request)

    from sharpstudent.tasks.deepfake.swaps.run import run_swaps  # after the arguments are checked: it costs a second

    counts = run_swaps(request, print)
    print(f"{counts.fake} fakes of {counts.real} real faces of {counts.people} people in {request.dest}")
    if counts.left_out:
        print(f"{counts.left_out} photos were left out, with the reason in {request.dest / 'left_out.csv'}")


def _check(request: SwapRequest) -> None:
    problems = [
        Problem(f"--{name}", "is out of range", expected=expected, got=str(value), remedy="choose another number")
        for name, value, is_good, expected in (
            ("per-face", request.per_face, 1 <= request.per_face <= 100, "1 to 100"),
            ("seed", request.seed, 0 <= request.seed < 2**32, "0 to 4294967295"),
            ("split-seed", request.split_seed, 0 <= request.split_seed < 2**32, "0 to 4294967295"),
            ("image-size", request.image_size, 32 <= request.image_size <= 2048, "32 to 2048 pixels"),
            ("validation-share", request.validation_share, 0 < request.validation_share < 1, "above 0, below 1"),
        )
        if not is_good
    ]
    if problems:
        raise UserError(*problems)


if __name__ == "__main__":
    with exit_codes():
        main()
