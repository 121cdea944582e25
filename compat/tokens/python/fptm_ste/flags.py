"""The flags of the document's command lines, and the config of this project that each command line stands for.

Each flag changes a key of the config, or what is done after training. One that would have no effect on the model that
is asked for is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from sharpstudent.core.arguments import read_path
from sharpstudent.core.errors import UserError

SIZES = {"mnist": 28, "fashion": 28, "cifar10": 32, "imagenet": 224}
CHANNELS = {"mnist": 1, "fashion": 1, "cifar10": 3, "imagenet": 3}
BACKENDS = {"transformer": None, "mlp": "mlp", "plain": "plain"}
VIT_ONLY = ("transformer_layers", "transformer_heads")
SWIN_ONLY = ("transformer_depths", "transformer_stage_heads", "transformer_window")
EMA_DECAY = 0.99  # of the averaged weights, where a command line gives their term a weight but no decay


def read_numbers(kind: type[int] | type[float]) -> Any:
    """Make the type of an option that holds numbers with commas between them."""

    def read(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",")]

    read.__name__ = f"{kind.__name__} or a list of them"
    return read


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add every flag that the document prints, and a few that it leaves open."""
    add = parser.add_argument
    add("--epochs", type=int, default=1)
    add("--batch-size", type=int, default=128)
    add("--test-batch-size", type=int, default=256, help="pictures at once in the test")
    add("--device", default="cpu", help="cpu, cuda, mps or auto; one that is not there is refused")
    add("--seed", type=int, default=1)
    add("--lr", type=float, default=0.003, help="peak of the learning rate (AdamW)")
    add("--rho", type=float, default=0.0, help="radius of SAM; 0: none, as in the document")
    add("--data-root", type=read_path, help="folder of the data (default: data/DATASET of this project)")
    add("--tm-target-size", type=int, nargs=2, metavar=("H", "W"), help="size of the pictures that models read [px]")
    add("--report-epoch-acc", action="store_true", help="print the validation accuracy of each epoch")
    add("--transformer-arch", choices=("vit", "swin"), default="vit")
    add("--transformer-backend", choices=("ste", "deeptm"), default="ste")
    add("--transformer-patch", type=int, default=4)
    add("--transformer-embed-dims", type=read_numbers(int), help="one width a stage")
    add("--transformer-layers", type=int, help="blocks of a vit (1)")
    add("--transformer-heads", type=int, help="attention heads of a vit (4)")
    add("--transformer-depths", type=read_numbers(int), help="blocks of each stage of a swin (1,1)")
    add("--transformer-stage-heads", type=read_numbers(int), help="attention heads of each stage of a swin (2,4)")
    add("--transformer-mlp-ratio", type=read_numbers(float), default=[4.0], help="one, or one a stage (4.0)")
    add("--transformer-window", type=int, help="side of a swin's windows in tokens (4)")
    add("--transformer-clauses", type=int, default=192)
    add("--transformer-clause-specialize", action="store_true", help="reweight attention heads by their use")
    add("--transformer-clause-specialize-strength", type=float, help="0 to 1 (0.5)")
    add("--transformer-self-distill-weight", type=float, default=0.0)
    add("--transformer-self_distill_temp", "--transformer-self-distill-temp", type=float, default=2.0)
    add("--transformer-ema-decay", type=float, help=f"of the averaged weights that teach ({EMA_DECAY})")
    add("--transformer-aux-weight", type=float, default=0.0, help="of the diagnostic heads")
    add("--transformer-contrastive-weight", type=float, default=0.0, help="of SupCon")
    add("--transformer-clause-weight", type=float, default=0.0, help="of the clause regularisation")
    add("--transformer-save-path", type=read_path, help="state dict, model_kwargs, config and metrics")
    add("--distill-teacher-timm", metavar="NAME", help="a timm model with ImageNet weights")
    add("--distill-teacher-checkpoint", type=read_path, metavar="FILE", help="loaded after timm's weights")
    add("--distill-teacher-weight", type=float, default=0.5)
    add("--distill-teacher-temp", type=float, default=2.0)
    add("--visualize-overlays", type=read_path, metavar="DIR")
    add("--visualize-samples", type=int, default=8)


def build_student(read: argparse.Namespace, model: str) -> dict[str, Any]:
    """Build the key `student`.

    Args:
        read: The flags.
        model: One of BACKENDS.

    Raises:
        UserError: For a flag without effect on such a model.
    """
    arch = read.transformer_arch
    for name in VIT_ONLY if arch == "swin" else SWIN_ONLY:
        if getattr(read, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            what = f"has no effect on --transformer-arch {arch}"
            raise UserError.about(flag, what, remedy=f"leave {flag} out, or choose the other architecture")
    strength = read.transformer_clause_specialize_strength
    if strength is not None and not read.transformer_clause_specialize:
        what = "has no effect without --transformer-clause-specialize"
        raise UserError.about("--transformer-clause-specialize-strength", what, remedy="give both, or none")
    prefix = BACKENDS[model] or {"ste": "tm", "deeptm": "deeptm"}[read.transformer_backend]
    student = {
        "name": f"{prefix}_{arch}",
        "patch_size": read.transformer_patch,
        "mlp_ratio": read.transformer_mlp_ratio,
        "clauses": read.transformer_clauses,
    }
    if read.transformer_clause_specialize:
        student["clause_specialize"] = 0.5 if strength is None else strength
    if arch == "vit":
        more = {"embed_dim": read.transformer_embed_dims or [64], "depths": [read.transformer_layers or 1]}
        return {**student, **more, "num_heads": [read.transformer_heads or 4]}
    more = {"embed_dim": read.transformer_embed_dims or [48, 96], "depths": read.transformer_depths or [1, 1]}
    return {
        **student,
        **more,
        "num_heads": read.transformer_stage_heads or [2, 4],
        "window_size": read.transformer_window or 4,
    }


def build_data(read: argparse.Namespace, dataset: str, root: str, source: str) -> dict[str, Any]:
    """Build the group `data`.

    Raises:
        UserError: For pictures that are not square.
    """
    height, width = read.tm_target_size or [SIZES[dataset]] * 2
    if height != width:
        remedy = f"--tm-target-size {height} {height}"
        raise UserError.about("--tm-target-size", "is not square", "H equal to W", f"{height} {width}", remedy)
    colour = CHANNELS[dataset] == 3
    return {
        **{"source": source, "data_root": root, "image_size": height, "channels": CHANNELS[dataset]},
        **{"shift": 4 if colour else 2, "flip": colour},
    }


def build_terms(read: argparse.Namespace, *, has_teacher: bool) -> list[dict[str, Any]]:
    """Build the six terms of the loss, without those of weight 0."""
    terms: list[dict[str, Any]] = [{"term": "hard", "weight": 1.0}]
    if has_teacher and read.distill_teacher_weight > 0:
        kd = {"weight": read.distill_teacher_weight, "temperature": read.distill_teacher_temp}
        terms.append({"term": "kd", "name": "teacher_kd_loss", **kd})
    if read.transformer_self_distill_weight > 0:
        temperature = read.transformer_self_distill_temp
        terms.append({"term": "self", "weight": read.transformer_self_distill_weight, "temperature": temperature})
    if read.transformer_aux_weight > 0:
        terms.append({"term": "hard", "name": "aux", "on": "aux.*", "weight": read.transformer_aux_weight})
    if read.transformer_contrastive_weight > 0:
        terms.append({"term": "supcon", "on": "embedding", "weight": read.transformer_contrastive_weight})
    if read.transformer_clause_weight > 0:
        terms.append({"term": "clause_sparsity", "weight": read.transformer_clause_weight})
    return terms


def find_decay(read: argparse.Namespace) -> float | None:
    """Find the decay of the averaged weights; None for no average.

    Raises:
        UserError: For their term with a decay of 0, under which they are the student itself, and teach nothing.
    """
    wanted = read.transformer_self_distill_weight > 0
    if wanted and read.transformer_ema_decay == 0:
        what = "is 0: the averaged weights would be the student itself, and their term would teach nothing"
        raise UserError.about(
            "--transformer-ema-decay", what, "above 0 and below 1", "0", f"--transformer-ema-decay {EMA_DECAY}"
        )
    return read.transformer_ema_decay or (EMA_DECAY if wanted else None)


def build_config(
    read: argparse.Namespace, *, student: Mapping[str, Any], data: Mapping[str, Any], teacher: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Build the config of the run: stage 2 under a teacher, else stage 1, from random weights in both."""
    stage = 1 if teacher is None else 2
    cosine = {"kind": "cosine", "start": read.lr, "end": read.lr / 100}
    config: dict[str, Any] = {
        **{"task": "tokens", "data": dict(data), "seed": read.seed, "student": dict(student)},
        **{"student_init": "random", "optimizer": "adamw", "weight_decay": 0.02, "clip_norm": 0.5, "rho": read.rho},
        **{"epoch": read.epochs, "batch_size": read.batch_size, "num_workers": 0, "device": read.device},
        f"stage{stage}": {
            "batch_size": read.batch_size,
            "lr": cosine,
            "terms": build_terms(read, has_teacher=stage == 2),
        },
    }
    decay = find_decay(read)
    config |= {} if decay is None else {"ema_decay": decay}
    return config if teacher is None else {**config, "teachers": [dict(teacher)]}


def list_names(text: str, known: Sequence[str], flag: str) -> list[str]:
    """Split names with commas between them.

    Raises:
        UserError: For an unknown one.
    """
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UserError.about(flag, "has a name that is not known", ", ".join(known), name)
    return names
