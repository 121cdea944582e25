"""Finds the widths of an architecture, and the largest of them that is lighter than another model.

Torch and timm are imported where they are needed: reports take `Lighter` from here and stay quick to load.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

CLEARLY = 0.95  # only a model that is at least 5 % smaller counts as lighter: 17.43 M against 17.55 M is no gain


@dataclass(frozen=True)
class Lighter:
    """A model that is lighter than another one.

    Attributes:
        name: Name of the timm model.
        parameters: Number of its parameters.
        macs: Multiply-accumulates for one picture.
    """

    name: str
    parameters: int
    macs: int


def is_clearly_less(one: float, other: float) -> bool:
    """Whether a number is at least 5 % below another.

    Args:
        one: The first number, above 0.
        other: The second number, above 0.
    """
    return one <= CLEARLY * other


def list_widths(name: str) -> list[str]:
    """List the timm models whose names differ from this one's in the last number only, sorted by that number.

    `mobilevitv2_200` gives `mobilevitv2_050` ... `mobilevitv2_200`, `tf_efficientnet_lite2` its five indices. Empty for
    a name that timm does not have or that ends in no number.
    """
    import timm

    known = timm.list_models()
    found = re.fullmatch(r"(.*?)\d+", name)
    if name not in known or found is None:
        return []
    family = re.compile(re.escape(found[1]) + r"(\d+)")
    numbers = {one: int(match[1]) for one in known if (match := family.fullmatch(one)) is not None}
    return sorted(numbers, key=numbers.__getitem__)


def find_lighter_width(name: str, *, side: int, below_parameters: int, below_macs: int) -> Lighter | None:
    """Find the largest width of a model that is at least 5 % below two numbers.

    The models have two outputs and are built on torch's meta device, so no memory is used for weights.

    Args:
        name: Name of a timm model.
        side: Side of the pictures [px].
        below_parameters: Parameters of the model that it has to be lighter than.
        below_macs: Multiply-accumulates of that model.

    Returns:
        None where no width is lighter.
    """
    counted = [found for width in list_widths(name) if (found := _count(width, side)) is not None]
    fitting = [
        one
        for one in counted
        if is_clearly_less(one.parameters, below_parameters) and is_clearly_less(one.macs, below_macs)
    ]
    return max(fitting, key=lambda one: (one.parameters, one.macs), default=None)


@functools.cache
def _count(name: str, side: int) -> Lighter | None:
    """Count parameters and MACs of one width; None for a model that refuses pictures of this size.

    The number in the name of such a model is a picture size and not a width.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from sharpstudent.models.forward import count_parameters
    from sharpstudent.models.vision import build_classifier

    with torch.device("meta"), torch.no_grad():
        model = build_classifier(name, classes=2, dropout=None).eval()  # at its own size, in which the number may be
        counter = FlopCounterMode(display=False)
        try:
            with counter:
                model(torch.zeros(1, 3, side, side))
        except (AssertionError, RuntimeError, ValueError):  # raised by timm or torch for a size that the model refuses
            return None
    return Lighter(name, count_parameters(model), counter.get_total_flops() // 2)  # a MAC is two operations
