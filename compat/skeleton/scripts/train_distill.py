"""Distil LAST-v2 into LAST-E, as the document prints it.

    python scripts/train_distill.py --config configs/distillation/default.yaml
    python scripts/train_distill.py --config configs/distillation/default.yaml --sequence

The first trains the student of the settings alone and distils it from `teacher_checkpoint`. The second runs the
document's training sequence, 1 to 5: the teacher, every student alone, for as many further steps, and distilled, the
evaluation of all, and the table 07_Experiments.md. Stopped, the same command goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE / "src"), str(ROOT / "lib")]

from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path  # noqa: E402 (found by the line above)
from sharpstudent.core.errors import UserError, exit_codes  # noqa: E402


def main() -> None:
    """Read the command line and run what it asks for."""
    from training.distill_trainer import SIZES

    parser = Parser("scripts/train_distill.py", str(__doc__).rpartition("\n\n    python")[0], more=EXIT_CODES)
    parser.add_argument("--config", type=read_path, default=Path("configs/distillation/default.yaml"), metavar="FILE")
    parser.add_argument("--sequence", action="store_true", help="the training sequence 1 to 5")
    parser.add_argument("--students", nargs="+", choices=SIZES, default=list(SIZES), help="those of --sequence (all)")
    parser.add_argument("--set", dest="changes", metavar="KEY=VALUE", action="append", default=[],
                        help="change the settings: tau=6.0, data.data_root=FOLDER, epoch=30")  # fmt: skip
    parser.add_argument("--out", type=read_path, default=Path("output"), metavar="FOLDER", help="(%(default)s)")
    read = parser.read(sys.argv[1:])
    config, out = read.config.resolve(), read.out.resolve()
    if not config.is_file():
        raise UserError.about(str(read.config), "does not exist", remedy="--config configs/distillation/default.yaml")
    sys.argv[0] = str(ROOT / "main_distillation.py")  # where planned runs look for the scripts
    run(config, out, read.changes, read.students if read.sequence else ())


def run(config: Path, out: Path, changes: list[str], sizes: list[str] | tuple[str, ...]) -> None:
    """Run one distillation, or the sequence of these sizes."""
    from sharpstudent.evaluation.planned_runs import Planner, find_newest
    from training import distill_trainer as trainer

    settings = trainer.read_settings(config, changes)
    if sizes:
        teacher, trained = trainer.train_sequence(settings, out, sizes)
        report = trainer.write_experiments(trainer.compare_all(teacher, trained, out), settings, out)
        print(report.read_text())
        print(f"the table: {report}")
        return
    # A teacher that is missing is said before the student is trained for hours.
    teacher = find_newest(settings.teacher_checkpoint, "teacher_checkpoint")
    keys = {**settings.build_keys(settings.student), "teacher_weights": str(teacher)}
    name = settings.student["name"]
    first, second = (Planner(out, HERE, stage=stage) for stage in (1, 2))
    alone = first.plan(name, keys, f"{name}.json", name, ())
    first.train_all([alone])
    keys["pretrained_student_weights"] = str(alone.find_folder() / "weights/best_model.pth")
    distilled = second.plan(f"distilled_{name}", keys, f"distilled_{name}.json", f"distilled_{name}", ())
    second.train_all([distilled])
    print(f"the student: {distilled.find_folder() / 'weights/best_model.pth'}")


if __name__ == "__main__":
    with exit_codes():
        main()
