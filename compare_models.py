"""Compare models on the same samples: did distillation help, and is the student lighter at all?

python compare_models.py --teacher weights/FFc23.tar --before output/FIRST --distilled output/SECOND --data data/mine
python compare_models.py ablate configs/config_SBI.json --preset terms
python compare_models.py sweep configs/config_SBI.json --vary temperature=2,4 --vary rho=0,0.05
python compare_models.py check output/RUN
"""

from __future__ import annotations

import sys

from sharpstudent.commands import ablate, check, compare, sweep
from sharpstudent.core.errors import exit_codes


def main() -> None:
    """Compare models, train what is to be compared (`ablate`, `sweep`), or look at a run (`check`)."""
    words = sys.argv[1:]
    further = {"ablate": ablate, "sweep": sweep, "check": check}
    further[words[0]](words[1:]) if words[:1] and words[0] in further else compare(words)


if __name__ == "__main__":
    with exit_codes():
        main()
