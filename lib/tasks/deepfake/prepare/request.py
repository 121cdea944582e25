"""What the user asked for, and what of it the set remembers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lib.tasks.deepfake.prepare.settings import CutSettings


@dataclass(frozen=True)
class Request:
    """One preparation, as the command line names it. label: 0, 1, or None for what the folders say; clip_timeout:
    for one clip [s]; overwrite: what is finished in dest may be replaced or removed; retry: clips whose worker was
    lost are tried again.
    """

    source: Path
    dest: Path
    layout: str | None = None
    label: int | None = None
    cut: CutSettings = field(default_factory=CutSettings)
    shards: bool = False
    workers: int = 1
    validation_share: float = 0.2
    test_share: float = 0.0
    split_seed: int = 0
    clip_timeout: float = 600.0
    overwrite: bool = False
    retry: bool = False

    def describe(self, layout: str) -> dict[str, Any]:
        """What decides the set, as plain JSON: no path of this machine, nothing of workers and time."""
        return {
            "source": self.source.resolve().name.encode("utf-8", "backslashreplace").decode(),
            "layout": layout,
            **asdict(self.cut),
            "label": None if self.label is None else ("real", "fake")[self.label],
            "validation_share": self.validation_share,
            "test_share": self.test_share,
            "split_seed": self.split_seed,
            "shards": self.shards,
        }


# What the crops do not depend on: with other values of these only the manifest is written anew.
MANIFEST_SETTINGS = ("label", "validation_share", "test_share", "split_seed", "shards")
