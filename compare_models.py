"""Compare models on the same samples: did distillation help, and is the student lighter at all?

python compare_models.py --teacher weights/FFc23.tar --before output/FIRST --distilled output/SECOND --data data/mine
python compare_models.py ablate configs/config_SBI.json --preset terms
python compare_models.py sweep configs/config_SBI.json --vary temperature=2,4 --vary rho=0,0.05
python compare_models.py check output/RUN
"""

from __future__ import annotations

import sys

from sharpstudent.core.errors import exit_codes
from sharpstudent.evaluation.command_line import COMPARE, parse_command_line


def main() -> None:
    """Compare models, train what is to be compared (`ablate`, `sweep`), or look at a run (`check`)."""
    if sys.argv[1:2] == ["ablate"]:
        from sharpstudent.evaluation.ablate import main as ablate

        return ablate(sys.argv[2:])
    if sys.argv[1:2] == ["sweep"]:
        from sharpstudent.evaluation.sweep import main as sweep

        return sweep(sys.argv[2:])
    if sys.argv[1:2] == ["check"]:
        from sharpstudent.train.advice import main as check

        return check(sys.argv[2:])
    renderer, request = parse_command_line(sys.argv[1:], script=COMPARE)

    # torch is imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.evaluation.run import run_evaluation
    from sharpstudent.report.console import build_console

    run_evaluation(renderer, request, build_console())


if __name__ == "__main__":
    with exit_codes():
        main()
