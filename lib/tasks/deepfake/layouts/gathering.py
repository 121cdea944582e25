"""What a layout has found so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from lib.tasks.deepfake.layouts.clip import Found, RawClip, Rejected, Split
from lib.tasks.deepfake.layouts.keys import build_keys, fold
from lib.tasks.deepfake.layouts.listing import show_name


class Gathering:
    """Collects clips, what was left out, and notes; a thing left out twice is told once."""

    def __init__(self, root: Path, source_set: str) -> None:
        self.root = root
        self._source_set = source_set
        self._clips: list[RawClip] = []
        self._rejected: dict[str, Rejected] = {}
        self._notes: list[str] = []
        self._nameless: Counter[str] = Counter()

    def add(self, clip: RawClip) -> None:
        self._clips.append(clip)

    def add_video(
        self,
        file: Path,
        *,
        label: int,
        people: tuple[str, ...] | None,
        key: str | None = None,
        split: Split | None = None,
        manipulation: str = "",
        compression: str = "",
    ) -> None:
        """people None: unknown, the clip stands for itself. key: where it is not the path below the root."""
        name = build_keys(self.root, [file])[0] if key is None else key
        self.add(
            RawClip(
                key=name,
                kind="video",
                label=label,
                identities=people or (name,),
                file=file,
                split=split,
                source_set=self._source_set,
                manipulation=manipulation,
                compression=compression,
            )
        )

    def reject(self, source: str, reason: str) -> None:
        source = show_name(source)
        self._rejected.setdefault(source, Rejected(source, show_name(reason)))

    def note(self, text: str) -> None:
        if show_name(text) not in self._notes:
            self._notes.append(show_name(text))

    def note_unknown_people(self, folder: str, form: str) -> None:
        """Count a file whose name does not tell who is seen; `close` makes one note of them."""
        self._nameless[f"{folder} are not named like {form}: each stands for a person of its own"] += 1

    def close(self) -> Found:
        """Clips in the order of their keys, no two of which are alike even where case is ignored."""
        taken: set[str] = set()
        clips: list[RawClip] = []
        for clip in sorted(self._clips, key=lambda clip: (clip.key, str(clip.file))):
            key, number = clip.key, 2
            while fold(key) in taken:
                key, number = f"{clip.key}~{number}", number + 1
            taken.add(fold(key))
            clips.append(clip if key == clip.key else replace(clip, key=key))
        notes = [*self._notes, *(f"{count} files of {text}" for text, count in self._nameless.items())]
        return Found(tuple(clips), tuple(self._rejected.values()), tuple(notes))
