"""Builds students and teachers of the task by name: token transformers, a small CNN, and any timm model.

Legend: R rows, S side of a picture in pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sharpstudent.core.errors import UserError
from sharpstudent.models.vision import PREPROCESS_OPTIONS, build_classifier
from sharpstudent.task import ModelSpec
from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer

# The default of each student: architecture, backend, and what a Swin has in its stages.
_SWIN = {"patch_size": 2, "embed_dim": (48, 96), "depths": (1, 1), "num_heads": (2, 4)}
STUDENTS: Mapping[str, Mapping[str, Any]] = {
    "tm_vit": {"architecture": "vit", "backend": "ste"},
    "deeptm_vit": {"architecture": "vit", "backend": "deeptm"},
    "mlp_vit": {"architecture": "vit", "backend": "mlp"},
    "plain_vit": {"architecture": "vit", "backend": "none"},
    "tm_swin": {"architecture": "swin", "backend": "ste", **_SWIN},
    "deeptm_swin": {"architecture": "swin", "backend": "deeptm", **_SWIN},
    "mlp_swin": {"architecture": "swin", "backend": "mlp", **_SWIN},
}
CLOSED = ("num_classes", "image_size", "in_channels", "dropout", "backend", "architecture")  # set by other keys
OPTIONS = tuple(name for name in inspect.signature(UnifiedTMTransformer).parameters if name not in CLOSED)
OWN_NORMALISATION = "own_normalisation"  # an option of a timm model: its mean and std may differ from timm's
PER_STAGE = ("embed_dim", "depths", "num_heads", "mlp_ratio")
RANGES = {"clause_specialize": (0.0, 1.0), "attention_scale": (0.0, 10.0), "position_deviation": (0.0, 10.0)}
CHOICES = {"pool": ("mean", "class"), "literals": ("binary", "single", "soft"), "freeze_clauses": (False, True)}


class SmallCNN(nn.Module):
    """Three convolutions and a head, a teacher for digits: `image` (R, channels, S, S) -> `logits`, `embedding`."""

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for ours, theirs in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(ours, theirs, 3, padding=1), nn.BatchNorm2d(theirs), nn.ReLU(), nn.MaxPool2d(2)]
        self.backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4 * width, classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Classify pictures."""
        embedding = self.backbone(image)
        return {"logits": self.head(embedding), "embedding": embedding}


def build_model(spec: ModelSpec, *, classes: int, image_size: int, channels: int) -> nn.Module:
    """Build a model with random weights.

    Args:
        spec: Its name, one of STUDENTS, `cnn` or a timm name, with its options.
        classes: Classes of the task.
        image_size: Side of its pictures.
        channels: Channels of its pictures; a timm model gets three, of equal values if there is one.

    Raises:
        UserError: For options that do not fit.
    """
    if not classes:
        raise UserError.about(
            "data.data_root",
            "has no classes: there is no train/CLASS folder in it",
            remedy="check data.data_root; docs/tokens.md shows each form",
        )
    if spec.name in STUDENTS:
        return _build_transformer(spec, classes, image_size, channels)
    if spec.name == "cnn":
        _refuse_options(spec, ("width",))
        return SmallCNN(channels, classes, **spec.options)
    options = dict(spec.options)
    own = options.pop(OWN_NORMALISATION, False)
    known = _find_normalisation(spec.name)
    for name in () if own is True else known:
        if list(options.get(name, known[name])) != known[name]:
            what = f"is given a {name} that is not the one it was trained with: it would see other pictures"
            remedy = (
                f'leave {name} out; for weights that were trained with it, add "{OWN_NORMALISATION}": true to the model'
            )
            raise UserError.about(f"{spec.role} {spec.name!r}", what, str(known[name]), str(options[name]), remedy)
    model = build_classifier(
        spec.name,
        classes=classes,
        dropout=spec.dropout if spec.dropout is not None else 0.0,
        options={**known, **options},
        side=image_size,
    )
    model.register_forward_pre_hook(_add_colours, with_kwargs=True)
    return model


def _add_colours(module: nn.Module, args: tuple[Tensor, ...], words: dict[str, Tensor]) -> Any:
    """Give a model of three channels a grey picture three times."""
    if args:
        return (args[0].expand(-1, 3, -1, -1), *args[1:]), words
    return args, {**words, "image": words["image"].expand(-1, 3, -1, -1)}


def _find_normalisation(name: str) -> dict[str, Any]:
    """Find mean and deviation of the colours that a timm model was trained with; {} for an unknown name."""
    import timm

    config = timm.models.get_pretrained_cfg(name) if timm.is_model(name) else None
    return {} if config is None else {"mean": list(config.mean), "std": list(config.std)}


def list_arguments(spec: ModelSpec, *, classes: int, image_size: int, channels: int) -> dict[str, Any]:
    """List the arguments of `UnifiedTMTransformer` for a student of this task, as JSON values.

    Args:
        spec: The name, one of STUDENTS, and the options.
        classes: Classes of the task.
        image_size: Side of its pictures.
        channels: Channels of its pictures.

    Raises:
        UserError: For options that do not fit.
    """
    _refuse_options(spec, OPTIONS)
    options = {**STUDENTS[spec.name], **spec.options}
    for name in PER_STAGE:
        if name in options and isinstance(options[name], int | float):
            options[name] = [options[name]]
    for name, known in CHOICES.items():
        if options.get(name, known[0]) not in known:
            _refuse(spec, f"option {name}", " or ".join(map(str, known)), options[name])
    for name, (least, most) in RANGES.items():
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            _refuse(spec, f"option {name}", f"a number of {least:g}..{most:g}", value)
    clauses = options.get("clauses", 192)
    if not isinstance(clauses, int) or clauses < 2 or clauses % 2:
        _refuse(spec, "option clauses", "an even number, half of it in each bank", clauses)
    form = {"num_classes": classes, "image_size": image_size, "in_channels": channels, "dropout": spec.dropout or 0.0}
    return {**form, **options}


def _build_transformer(spec: ModelSpec, classes: int, image_size: int, channels: int) -> nn.Module:
    arguments = list_arguments(spec, classes=classes, image_size=image_size, channels=channels)
    try:
        return UnifiedTMTransformer(**arguments)
    except (ValueError, TypeError) as error:
        raise UserError.about(
            f"{spec.role} {spec.name!r}",
            f"cannot be built: {error}",
            remedy="change its options, or data.image_size",
        ) from error


def _refuse_options(spec: ModelSpec, known: tuple[str, ...]) -> None:
    unknown = [name for name in spec.options if name not in known and name not in PREPROCESS_OPTIONS]
    unknown += [name for name in spec.options if name in PREPROCESS_OPTIONS]
    if unknown:
        _refuse(spec, "an option", ", ".join(known), unknown[0])


def _refuse(spec: ModelSpec, what: str, expected: str, got: object) -> None:
    raise UserError.about(f"{spec.role} {spec.name!r}", f"has {what} that does not fit", expected, str(got))
