"""Translates the flags of the gaze scripts into a config, and runs the project's own two scripts with it.

`--distill_weight` above 0 makes it stage 2 from a student with a new head, with the teacher; else it is stage 1. Both
are plain Adam without SAM unless `--rho` asks for it. Everything that a run keeps lies in its folder, as always.
"""

from __future__ import annotations

import json
import runpy
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "lib")]

from sharpstudent.config.run_config import RunConfig  # noqa: E402
from sharpstudent.config.stored import STORED_NAME, find_run, load_run_config  # noqa: E402
from sharpstudent.core.arguments import EXIT_CODES, Parser, read_number, read_path  # noqa: E402
from sharpstudent.core.errors import UserError  # noqa: E402
from sharpstudent.core.io import make_folder, write_text_atomically  # noqa: E402
from sharpstudent.core.naming import printable  # noqa: E402
from sharpstudent.registry import find_task  # noqa: E402

INOUT = "_inout"
CURATED = (
    "gazelle_dinov3_vit_tiny",
    "gazelle_dinov3_vit_tinyplus",
    "gazelle_dinov3_vits16",
    "gazelle_dinov3_vits16plus",
    "gazelle_dinov3_vitb16",
    "gazelle_dinov2_vitb14",
    "gazelle_dinov2_vitl14",
    "gazelle_dinov2_vitb14_inout",
    "gazelle_dinov2_vitl14_inout",
)
CHECKPOINTS = Path("ckpts")
# By how much a teacher may be worse than the student by the metric that selects. One without an in/out head is, so that
# only a teacher that guesses is refused.
LEAST_TEACHER = 1.0
# Flags that a resumed run takes from its own config.
OF_THE_RUN = ("distill_teacher", "distill_weight", "distill_temp_start", "distill_temp_end", "distill_teacher_ckpt")


@dataclass(frozen=True)
class Script:
    """What the two scripts differ in.

    Attributes:
        name: The file, for messages.
        layout: The layout of the data.
        model: The default student.
        data_path: The default folder of the data.
        lr: The default learning rate.
        epochs: The default number of epochs.
        metric: The metric that selects epochs.
    """

    name: str
    layout: str
    model: str
    data_path: str
    lr: float
    epochs: int
    metric: str


def build_parser(script: Script) -> Parser:
    """Build the parser of a script, with the defaults of its document."""
    purpose = f"Train a gaze model on {script.layout}, alone or distilled, as the Gaze-LLE documents print it."
    parser = Parser(f"scripts/{script.name}", purpose, more=EXIT_CODES)
    add, positive = parser.add_argument, read_number(float, 0.0, 1e6)
    count = read_number(int, 1, 1_000_000)
    add("--model_name", "--model", metavar="NAME", default=script.model, help="the student (%(default)s)")
    add("--distill_teacher", metavar="NAME", default="gazelle_dinov3_vits16plus", help="the teacher (%(default)s)")
    add(
        "--distill_weight", metavar="W", type=positive, default=0.0, help="of the teacher's term; 0: none (%(default)s)"
    )
    add("--distill_temp_start", metavar="T", type=positive, default=1.0, help="at the first step (%(default)s)")
    add("--distill_temp_end", metavar="T", type=positive, default=4.0, help="at the last step (%(default)s)")
    add("--distill_teacher_ckpt", metavar="FILE", type=read_path, help="default: ./ckpts/NAME.pt")
    add("--data_path", metavar="FOLDER", type=read_path, default=script.data_path, help="default: %(default)s")
    add("--backbone_weights", metavar="FILE", default="imagenet", help="default: weights/NAME.imagenet.*, see docs")
    add("--init_ckpt", metavar="FILE", type=read_path, help="checkpoint that the student starts from")
    add("--ckpt_save_dir", metavar="FOLDER", type=read_path, default="experiments", help="default: %(default)s")
    add("--exp_name", metavar="NAME", default=f"train_{script.layout}", help="default: %(default)s")
    add("--max_epochs", metavar="N", type=count, default=script.epochs, help="default: %(default)s")
    add("--batch_size", metavar="N", type=count, default=60, help="default: %(default)s")
    add("--lr", "--lr_non_inout", metavar="LR", type=positive, default=script.lr, help="default: %(default)s")
    add("--n_workers", metavar="N", type=read_number(int, 0, 1024), default=8, help="default: %(default)s")
    add("--grad_clip_norm", metavar="L2", type=positive, default=1.0, help="default: %(default)s")
    add("--rho", metavar="RHO", type=positive, default=0.0, help="radius of SAM; 0: none (%(default)s)")
    add("--use_amp", action="store_true", help="bf16 under autocast")
    add("--finetune", action="store_true", help="train the backbone, too")
    add("--backbone_lr", metavar="LR", type=positive, help="of the backbone, with --finetune (default: --lr)")
    add("--resume", metavar="RUN", help="a run, or a checkpoint in its folder; its own flags are restored")
    if script.layout == "vat":
        add("--frame_sample_every", metavar="N", type=count, default=6, help="default: %(default)s")
        add("--inout_loss_lambda", metavar="W", type=positive, default=1.0, help="default: %(default)s")
        add("--lr_inout", metavar="LR", type=positive, default=1e-2, help="of the in/out head (%(default)s)")
    return parser


def run(script: Script, argv: Sequence[str]) -> None:
    """Train as the flags say.

    Args:
        script: Which of the two scripts.
        argv: The arguments, without the program's name.

    Raises:
        UserError: For every mistake.
    """
    read = build_parser(script).read(argv)
    given = {word.split("=")[0].removeprefix("--") for word in argv if word.startswith("--")}
    if read.resume is not None:
        return resume(read, given)
    is_distilled = read.distill_weight > 0
    config = build_config(script, read)
    name = read.exp_name
    path = Path(read.ckpt_save_dir) / "configs" / f"{name}.json"
    make_folder(path.parent)
    write_text_atomically(path, json.dumps(config, indent=2) + "\n")
    say(f"distillation: {describe(read) if is_distilled else 'disabled (--distill_weight 0)'}")
    if is_distilled and read.distill_teacher == read.model_name:
        say("warning: student and teacher have the same architecture: expect little from such a teacher")
    allow = ("--allow", "unpretrained-student") if is_distilled else ()
    return call(2 if is_distilled else 1, str(path), "-n", name, *allow)


def describe(read: Namespace) -> str:
    """Say in a line what is distilled."""
    temperatures = f"{read.distill_temp_start:g} -> {read.distill_temp_end:g}"
    return f"teacher {read.distill_teacher}, weight {read.distill_weight:g}, temperature {temperatures}"


def build_config(script: Script, read: Namespace) -> dict[str, Any]:
    """Build the config that the flags stand for. Raises UserError for flags that do not go together."""
    from sharpstudent.tasks.gaze.backbones import read_name  # loads torch, which --help can do without

    terms: list[dict[str, Any]] = [{"term": "heatmap"}]
    if read.backbone_lr is not None and not read.finetune:
        raise UserError.about(
            "--backbone_lr", "is for a backbone that learns, and it is frozen", remedy="add --finetune"
        )
    factors = {} if read.backbone_lr is None else {"backbone.*": read.backbone_lr / read.lr}
    if script.layout == "vat":
        own = {"term": "binary", "name": "inout", "on": "inside", "target": "inside"}
        terms.append({**own, "weight": read.inout_loss_lambda})
        factors["head.inout_*"] = read.lr_inout / read.lr
    taught = {
        "term": "kd",
        "weight": read.distill_weight,
        "on": "heatmap",
        "over": "pixels",
        "temperature": {"kind": "cosine", "start": read.distill_temp_start, "end": read.distill_temp_end},
    }
    lr = {"kind": "cosine", "start": read.lr, "end": min(1e-7, read.lr)}
    common = {"lr": lr, "batch_size": read.batch_size}
    config: dict[str, Any] = {
        "task": "gaze",
        "data": {
            "layout": script.layout,
            "data_root": str(read.data_path),
            "image_size": read_name(read.model_name).side or 448,
            **({"every": read.frame_sample_every} if script.layout == "vat" else {}),
        },
        "student": {"name": read.model_name, **({"train_backbone": True} if read.finetune else {})},
        "student_init": str(read.init_ckpt or read.backbone_weights),
        "selection_metric": script.metric,
        **{"optimizer": "adamw", "weight_decay": 0.0, "clip_norm": read.grad_clip_norm, "rho": read.rho},
        **{"epoch": read.max_epochs, "num_workers": read.n_workers, "output_root": str(read.ckpt_save_dir)},
        "precision": "bf16" if read.use_amp else "fp32",
        **({"lr_factors": factors} if factors else {}),
        "stage1": {**common, "terms": terms},
    }
    if read.distill_weight > 0:
        config["stage2"] = {**common, "terms": [*terms, taught]}
        config["weak_teacher_margin"] = LEAST_TEACHER
        config["teachers"] = [find_teacher(read)]
    return config


def find_teacher(read: Namespace) -> dict[str, Any]:
    """Find the file of the teacher: the one that is named, else the curated one in ./ckpts/.

    Raises:
        UserError: For a name without a file.
    """
    name, path = read.distill_teacher, read.distill_teacher_ckpt
    if path is None and name not in CURATED:
        raise UserError.about(
            f"--distill_teacher {name}",
            "has no curated file",
            expected=", ".join(CURATED),
            remedy="name its checkpoint: --distill_teacher_ckpt /path/to/file.pt",
        )
    found = Path(path) if path is not None else CHECKPOINTS / f"{name}.pt"
    if not found.is_file():
        raise UserError.about(
            f"--distill_teacher {name}",
            f"has no file {found}",
            expected="a trained model: a teacher with a random head teaches noise",
            remedy="put it there, or name another one: --distill_teacher_ckpt /path/to/file.pt",
        )
    return {"model": name, "weights": str(found), **({} if has_backbone(found) else {"init": "imagenet"})}


def has_backbone(path: Path) -> bool:
    """Whether a file of weights has tensors of a backbone; warns where it has none."""
    from sharpstudent.models.weight_files import read_tensors

    if any("backbone" in key for key in read_tensors(path)):
        return True
    say(f"warning: {path} has no tensors of the backbone; they are taken from weights/, else from timm's hub")
    return False


def resume(read: Namespace, given: set[str]) -> None:
    """Continue a run with its own flags, and warn of those on the command line that differ.

    Args:
        read: The flags.
        given: The names of those that the command line has.
    """
    named = Path(read.resume)
    folder = named.parent.parent if named.is_file() else find_run(str(named), str(read.ckpt_save_dir))
    if not (folder / STORED_NAME).is_file():
        raise UserError.about(
            f"--resume {named}",
            f"is not in the folder of a run: {folder} has no {STORED_NAME}",
            expected="a run, such as experiments/NAME_*, or a file in its folder weights/",
            remedy="to start a new run from a checkpoint, name it with --init_ckpt",
        )
    config = load_run_config(folder, find_task)
    stored = list_flags(config)
    for name in sorted(given & set(stored)):
        if getattr(read, name) != stored[name]:
            say(f"warning: --{name} {getattr(read, name)} is not used: the run has {stored[name]}, which is restored")
    call(config.stage, "--resume", str(folder))


def list_flags(config: RunConfig) -> dict[str, Any]:
    """List the flags of distillation that a run has, by their names."""
    taught = next((term for term in config.criterion if term.term == "kd"), None)
    if taught is None:
        return {"distill_weight": 0.0}
    (teacher,) = config.teachers
    weight, _ = _read_ends(taught.weight.as_json())
    values = (teacher.name, weight, *_read_ends(taught.numbers["temperature"].as_json()), Path(str(teacher.weights)))
    return dict(zip(OF_THE_RUN, values, strict=True))


def _read_ends(number: Any) -> tuple[float, float]:
    """Read a number's first and last value from how a config writes it."""
    if not isinstance(number, dict):
        return float(number), float(number)
    return (number["value"],) * 2 if number["kind"] == "constant" else (number["start"], number["end"])


def call(stage: int, *words: str) -> None:
    """Run the project's script of a stage in this process."""
    name = {1: "train_student_only.py", 2: "main_distillation.py"}[stage]
    sys.argv = [name, *words]
    runpy.run_path(str(ROOT / name), run_name="compat")["main"]()


def say(line: str) -> None:
    """Print a line for the user."""
    print(printable(line), flush=True)
