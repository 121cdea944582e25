"""The official split of FaceForensics++: train.json, val.json and test.json, lists of pairs of video numbers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lib.errors import Problem, UserError
from lib.tasks.deepfake.layouts.clip import Split
from lib.tasks.deepfake.layouts.gathering import Gathering
from lib.tasks.deepfake.layouts.lists import read_json

FORM = '[["071", "054"], ...]'
SPLIT_NAMES: tuple[Split, ...] = ("train", "val", "test")


class OfficialPairs:
    """The split of each video number. A list that is not there is a note; a number in two lists has no split.

    Raises UserError for a list of another form.
    """

    def __init__(self, root: Path, gathering: Gathering) -> None:
        self._splits: dict[str, Split | None] = {}
        missing = [f"{split}.json" for split in SPLIT_NAMES if not (root / f"{split}.json").is_file()]
        for split in SPLIT_NAMES:
            if f"{split}.json" not in missing:
                self._take(root / f"{split}.json", split, gathering)
        if missing:
            gathering.note(
                f"{root} lacks {', '.join(missing)}: those videos have no official split "
                "(the lists are in the FaceForensics++ repository, dataset/splits)"
            )

    def find(self, numbers: Iterable[str]) -> Split | None:
        """The split that all the numbers share, else None."""
        splits: set[Split | None] = {self._splits.get(number) for number in numbers}
        return splits.pop() if len(splits) == 1 else None

    def _take(self, path: Path, split: Split, gathering: Gathering) -> None:
        for number in dict.fromkeys(_read_numbers(path)):
            known = self._splits.get(number, split)
            if known != split:
                gathering.note(f"{path}: video {number} stands in another list too, so it has no official split")
            self._splits[number] = split if known == split else None


def _read_numbers(path: Path) -> list[str]:
    pairs = read_json(path, form=FORM)
    numbers: list[str] = []
    for index, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
        if not isinstance(pair, list) or not all(isinstance(number, str) for number in pair):
            raise UserError(
                Problem(
                    where=f"{path}, entry {index}",
                    what="is not a pair of video numbers",
                    expected=FORM,
                    got=repr(pair)[:80],
                    remedy="take the file from the FaceForensics++ repository",
                )
            )
        numbers += pair
    return numbers
