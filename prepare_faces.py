"""Prepare face crops with a manifest from videos and photos, and check or describe such a set.

python prepare_faces.py my_videos data/mine
python prepare_faces.py check data/mine
"""

from __future__ import annotations

import sys

from sharpstudent.core.errors import exit_codes
from sharpstudent.tasks.deepfake.commands import prepare


def main() -> None:
    """Run the command; `sharpstudent prepare` is the same."""
    prepare(sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
