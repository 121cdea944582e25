"""Turn real photos of people into classical face swaps, for evaluation: warp, colour transfer, Poisson blending.

python make_swaps.py PEOPLE DEST        PEOPLE: ROOT/PERSON/*.jpg, or a CSV file with path,person[,split]

DEST gets real/ and fake/ (face crops, one folder a person) and swaps.csv. The same command resumes where it stopped.
"""

from __future__ import annotations

import sys

from sharpstudent.core.errors import exit_codes
from sharpstudent.tasks.deepfake.commands import swaps


def main() -> None:
    """Run the command; `sharpstudent swaps` is the same."""
    swaps(sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
