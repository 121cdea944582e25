"""SharpStudent trains small students from frozen teachers; docs/architecture.md is the map of its packages.

The names in `__all__` are the Python API (docs/python.md). They are imported when they are first used, so that this
import takes no time.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sharpstudent.api import FinishedStage, Model, distill, load, push_to_hub, train_student_only
    from sharpstudent.core.errors import UserError
    from sharpstudent.train.callbacks import Callback, CsvSteps, MlflowLogger, StageInfo, WandbLogger

__all__ = [
    "Callback",
    "CsvSteps",
    "FinishedStage",
    "MlflowLogger",
    "Model",
    "StageInfo",
    "UserError",
    "WandbLogger",
    "distill",
    "load",
    "push_to_hub",
    "train_student_only",
]

# OpenCV reads this once, when it is loaded: a header that claims 30,000 x 30,000 pixels is refused, not allocated.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))

_OF_CALLBACKS = ("Callback", "CsvSteps", "MlflowLogger", "StageInfo", "WandbLogger")
_MODULES = {"UserError": "core.errors", **dict.fromkeys(_OF_CALLBACKS, "train.callbacks")}


def __getattr__(name: str) -> object:
    """Import a name of the API when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"sharpstudent.{_MODULES.get(name, 'api')}")
    globals()[name] = value = getattr(module, name)
    return value


def __dir__() -> list[str]:
    """List the names of the API."""
    return sorted(__all__)
