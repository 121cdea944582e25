"""A small task of a user's own, as text for a folder of a test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INVENTED = Path(__file__).resolve().parents[1] / "invented"
SIGNALS = '''
from typing import ClassVar

from pydantic import Field, field_validator

from sharpstudent.config.terms import NumberSetting
from sharpstudent.task import Metric, Task, TaskSection, TermSpec


class Keys(TaskSection):
    """Where the recordings are, and how long they are [samples]."""

    root: str = Field(description="folder of recordings")
    length: int = Field(64, ge=8, description="samples of a recording")
    alpha: float = Field(0.5, description="of the noise")

    @field_validator("length")
    @classmethod
    def check_length(cls, value: int) -> int:
        if value % 8:
            raise ValueError("must be a multiple of 8, because the filter halves it three times")
        return value


class Signals(Task):
    Section = Keys
    metrics = {"error": Metric(lambda table, counts: 0.0, "lower"), "accuracy": Metric(lambda table, counts: 1.0)}
    terms = {
        "hinge": TermSpec(
            "signals_loss:build_hinge", "a hinge on the lead", settings={"lead": NumberSetting("the lead", default=1.0)}
        )
    }

    def open_data(self, *splits):
        raise NotImplementedError

    def build_student(self, spec):
        raise NotImplementedError

    def rows(self, outputs, batch):
        raise NotImplementedError


class Unfinished(Task):
    Section = Keys
    metrics = Signals.metrics

    def open_data(self, *splits):
        raise NotImplementedError


class Plain:
    pass


class NoKeys(Signals):
    Section = None


class NoMetrics(Signals):
    metrics = {}


class BadTerms(Signals):
    terms = {
        "kd": TermSpec("signals_loss:build", "taken"),
        "far": TermSpec("signals_loss.py", "no function"),
        "near": TermSpec("a:b", "taken", settings={"on": NumberSetting("", default=1.0)}),
    }


class BadDefaults(Signals):
    class Section(Keys):
        shared_defaults: ClassVar = {"studnet": "small"}


a_number = 3
'''


def write_signals(folder: Path, name: str = "signals.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(SIGNALS, encoding="utf-8")
    return folder / name


@contextmanager
def fresh_imports() -> Iterator[None]:
    """Forgets on leaving which modules were imported and where modules are looked up.

    The invented tasks, which other tests may have imported, are set aside for as long.
    """
    path, modules = list(sys.path), set(sys.modules)
    aside = {
        name: module for name, module in sys.modules.items() if str(INVENTED) in (module.__dict__.get("__file__") or "")
    }
    for name in aside:
        del sys.modules[name]
    sys.path[:] = [place for place in path if Path(place) != INVENTED]
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if not name.startswith(("sharpstudent", "importlib")):
                del sys.modules[name]
        sys.modules.update(aside)
