"""Load a network file through OpenCV, quietly, with an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import cv2

from lib.errors import Problem, UserError

Network = TypeVar("Network")


def load_model(model_file: str | Path, what: str, build: Callable[[str], Network]) -> Network:
    """Build a network from a file.

    what: the file's role, for the message; build: makes the network from the path. Raises UserError when the file is
    missing, empty or not such a model.
    """
    path = Path(model_file)
    if not path.is_file() or path.stat().st_size == 0:
        raise UserError(
            Problem(
                where=str(path),
                what=f"the {what} is missing or empty",
                remedy="fetch the model files (see weights/README.md) or give another path",
            )
        )
    # OpenCV 5 prints a line about its DNN engine for each network. OPENCV_LOG_LEVEL would be read too early for us: at
    # the first import of cv2, which is often someone else's.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return build(str(path))
    except cv2.error as error:
        raise UserError(
            Problem(
                where=str(path),
                what=f"OpenCV cannot read this file as the {what}",
                got=str(error).strip().splitlines()[0],
                remedy="the file is damaged or another kind of model: fetch it again (see weights/README.md)",
            )
        ) from error
    finally:
        cv2.utils.logging.setLogLevel(level)
