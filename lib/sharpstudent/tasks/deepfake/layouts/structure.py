"""Reads classes, splits and people from the structure of a folder or table.

Every entrance that takes a user's own folder or table uses `read_structure`, so that a tree means the same everywhere:
prepare_faces.py, `data_source: photos` and `labelled`, evaluations with and without --crops. A name counts only where
all its words are known. What could be meant in two ways is refused, never guessed.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sharpstudent.core.errors import Problem, ProblemList
from sharpstudent.tasks.deepfake.layouts.names import (
    DATA_SETS,
    UNSTATED,
    UNSURE_SPLITS,
    NameReading,
    Split,
    is_known_word,
    join_words,
    list_words,
    normalise,
    read_name,
    split_frame_name,
)

DATA_SET_VIDEOS = (
    (re.compile(r"[a-z]{10}", re.ASCII), "videos of DFDC, whose labels stand in metadata.json"),
    (re.compile(r"\d{3}_\d{3}", re.ASCII), "fakes of FaceForensics++ (TARGET_SOURCE)"),
    (re.compile(r"id\d+_id\d+_\d{4}", re.ASCII), "fakes of Celeb-DF"),
)
MANY = 100  # files under one name that are one person unasked, at most, where they are most of their class
TABLE = "list them in a table (path,label,person,split) and name that instead of the folder"


@dataclass(frozen=True)
class Asks:
    """How a user says, at one entrance, what the names leave open.

    Attributes:
        label: What says that everything is of one class.
        fake: What says that everything is fake, as a remark; "" where nothing can.
        people: What says that each file is a person of its own.
        folders: What says that each folder is one person.
    """

    label: str = "add --label real or --label fake if all files are of one class"
    fake: str = " (--label fake, if they are not)"
    people: str = "--people files"
    folders: str = "--people folders"


@dataclass(frozen=True)
class Item:
    """One file, and what a table says of it.

    Attributes:
        path: The file.
        parts: Its folders and its name, below the root.
        is_video: Whether it is a video; else it is a picture.
        label: Real 0, fake 1; None where no table says it.
        person: Who it shows; "" where no table says it.
        split: Its split; None where no table says it.
        manipulation: The kind of fake; "" where no table says it.
        columns: Further columns of the table, each with its value.
    """

    path: Path
    parts: tuple[str, ...]
    is_video: bool = False
    label: int | None = None
    person: str = ""
    split: Split | None = None
    manipulation: str = ""
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Place:
    """What the structure says of one file.

    Attributes:
        label: Real 0, fake 1; None where nothing says it.
        split: Its split; None where nothing says it.
        person: The person's folder, or the film that it is a frame of; "" where it stands for itself.
        film: The clip that a picture is a frame of, as a path; "" where it is a clip of its own.
    """

    label: int | None
    split: Split | None
    person: str
    film: str


@dataclass(frozen=True)
class Structure:
    """What the names of all files say.

    Attributes:
        places: One of each item, in their order; None for an item that is left out.
        left_out: The path of each item that is left out, and why.
        class_names: The names that give each class, with the number of files.
        notes: Lines for the user.
    """

    places: list[Place | None]
    left_out: dict[Path, str]
    class_names: dict[int, Counter[str]]
    notes: list[str]

    @property
    def has_classes(self) -> bool:
        """Whether the names or a table say what is real and what is fake."""
        return any(self.class_names.values())


def read_structure(
    root: Path, items: Sequence[Item], *, label: int | None, people: str | None, asks: Asks
) -> Structure:
    """Read class, split and person of every file from the names of its folders, or from a table.

    Args:
        root: The folder or table, for messages.
        items: All files.
        label: The class of everything, as the user says; None for what the names say.
        people: `folders` or `files`: what one person is, as the user says; None for folders, unless one holds too much.
        asks: How the user says what the names leave open.

    Returns:
        What is known of each file.

    Raises:
        UserError: Where a class, a split or a person can be meant in two ways.
    """
    reading = _Reading(root, items, asks)
    reading.check(label)
    films = {} if people is not None else _find_films(items, reading.folders)
    structure = reading.place_all(people, films)
    if people is None:
        reading.check_large(structure)
    if films:
        named = sorted({film.rpartition("/")[2] for film in films.values()})
        more = ", ..." if len(named) > 3 else ""
        structure.notes.append(
            f"{len(films):,} pictures are named like frames of {len(named):,} films ({', '.join(named[:3])}{more}): "
            f"each film stays in one split ({asks.people}: each picture is on its own)"
        )
    return structure


@dataclass(frozen=True)
class _Folders:
    """What the folders above one file say together; class_names: those that give its class."""

    labels: frozenset[int]
    splits: frozenset[Split]
    hints: frozenset[int]
    class_names: tuple[str, ...]
    person: str


class _Reading:
    """The names of all files, read together."""

    def __init__(self, root: Path, items: Sequence[Item], asks: Asks) -> None:
        self._root, self._items, self._asks = root, items, asks
        self._below = _list_below(items)
        self._of_classes = {parent for parent, names in self._below.items() if _are_all_classes(names)}
        self._of_splits = {parent for parent, names in self._below.items() if _are_all_splits(names)}
        self._shared = self._count_shared()
        self.folders = [self._read_folders(item) for item in items]
        self._problems = ProblemList()
        self._class_names: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
        for item, folders in zip(items, self.folders, strict=True):
            if item.label is not None:
                self._class_names[item.label]["the table"] += 1
            else:
                for name in folders.class_names:
                    self._class_names[next(iter(folders.labels))][name] += 1
        self._has_classes = any(self._class_names.values())
        self._has_splits = any(item.split or one.splits for item, one in zip(items, self.folders, strict=True))

    def _read_name(self, parent: tuple[str, ...], name: str) -> NameReading:
        """Read a folder's name; where it and all its neighbours are classes or splits, other words are people."""
        one = read_name(name)
        rest = " ".join(word for word in list_words(name) if not is_known_word(word))
        if parent in self._of_classes and not one.labels:
            one = replace(one, labels=one.words, person=rest)
        if parent in self._of_splits and not one.splits:
            one = replace(one, splits=one.split_words, person="" if one.person == name else one.person)
        return one

    def _count_shared(self) -> int:
        """Count the outer folders that hold everything and are no person.

        They are what a set was unpacked into, above its classes and splits, or where the files of a table lie.
        """
        shared, parent = 0, ()
        while len(names := self._below.get(parent, {})) == 1 and not any(
            len(i.parts) == shared + 1 for i in self._items
        ):
            parent = (*parent, next(iter(names)))
            shared += 1
        if not self._root.is_dir():
            return shared
        inside = [self._read_name(parent, name) for name in names]
        return shared if any(one.labels or one.splits for one in inside) else 0

    def _read_folders(self, item: Item) -> _Folders:
        labels, splits, hints = set[int](), set[Split](), set[int]()
        names, person = list[str](), ""
        for depth, part in enumerate(item.parts[:-1]):
            one = self._read_name(item.parts[:depth], part)
            labels |= one.labels
            splits |= one.splits
            hints |= one.hints
            names += [part] if one.labels else []
            person = person or ("" if depth < self._shared else one.person)
        return _Folders(frozenset(labels), frozenset(splits), frozenset(hints), tuple(names[:1]), person)

    def check(self, label: int | None) -> None:
        """Raise UserError, with everything that can be meant in two ways.

        Args:
            label: The class of everything, as the user says; None for what the names say.
        """
        if self._has_classes and label is not None:
            got = ", ".join(f"{name}" for names in self._class_names.values() for name in names)
            self._add(
                "gives the labels itself, and a label was given too",
                got=f"{got} and --label",
                remedy="leave out --label, or name the folder of one class",
            )
        self._check_paths()
        if label is None:
            self._check_unstated()
            if not self._has_classes:
                self._check_hints()
        if self._has_splits:
            self._check_mixed()
        else:
            self._check_unsure_splits()
        self._problems.raise_if_any()

    def place_all(self, people: str | None, films: Mapping[Path, str]) -> Structure:
        """Return what is known of each file.

        Args:
            people: What one person is, as in `read_structure`.
            films: The film of each picture that is named like a frame.

        Returns:
            The structure.

        Raises:
            UserError: Where most files have no class or no split, though others have.
        """
        places: list[Place | None] = []
        left_out: dict[Path, str] = {}
        for item, folders in zip(self._items, self.folders, strict=True):
            label = item.label if item.label is not None else next(iter(folders.labels), None)
            split = item.split or next(iter(folders.splits), None)
            reason = self._explain_left_out(label, split)
            if reason:
                left_out[item.path] = reason
            places.append(None if reason else _place(item, folders, label, split, people, films))
        if len(left_out) * 2 > len(self._items):
            path, reason = next(iter(left_out.items()))
            self._add(
                f"says of {len(left_out):,} of its {len(self._items):,} files no class or no split",
                got=f"{path} {reason}",
                remedy=f"sort them into real/ and fake/ (below each split), or {TABLE}",
            )
        self._problems.raise_if_any()
        return Structure(places, left_out, self._class_names, [])

    def check_large(self, structure: Structure) -> None:
        """Raise UserError where one name has many files, and most of a class: hardly one person."""
        sizes: Counter[tuple[int | None, str]] = Counter()
        totals: Counter[int | None] = Counter()
        for item, place in zip(self._items, structure.places, strict=True):
            if place is not None:
                totals[place.label] += 1
                sizes[place.label, "" if item.person else place.person] += 1
        for (label, person), size in sizes.most_common():
            if person and size >= MANY and size * 2 > totals[label]:
                self._add(
                    f"has {size:,} of {totals[label]:,} files under the one name {person!r}: one person, or many?",
                    remedy=f"{self._asks.people} if each file shows somebody else, {self._asks.folders} if each folder "
                    "is one person or film",
                )
                break
        self._problems.raise_if_any()

    def _add(self, what: str, *, remedy: str, expected: str | None = None, got: str | None = None) -> None:
        self._problems.add(Problem(str(self._root), what, expected, got, remedy))

    def _check_paths(self) -> None:
        """Find files whose folders contradict each other, or the table."""
        wrong: dict[str, str] = {}
        for item, folders in zip(self._items, self.folders, strict=True):
            shown = "/".join(item.parts)
            labels, splits = set(folders.labels), set(folders.splits)
            labels |= folders.hints if labels else set()
            labels |= set() if item.label is None else {item.label}
            splits |= set() if item.split is None else {item.split}
            if len(labels) > 1 or (folders.hints and not labels and self._has_classes):
                wrong.setdefault("class", shown)
            if len(splits) > 1:
                wrong.setdefault("split", shown)
        for kind, shown in wrong.items():
            self._add(
                f"names a file so that its {kind} can be meant in two ways",
                got=shown,
                remedy=f"rename a folder so that one name gives the {kind}, or {TABLE}",
            )

    def _check_unstated(self) -> None:
        """Find pairs of folders that are two classes, but do not say which is which."""
        levels: dict[int, dict[str, str]] = defaultdict(dict)
        for item, folders in zip(self._items, self.folders, strict=True):
            if not folders.labels and item.label is None:
                for depth, part in enumerate(item.parts[:-1]):
                    levels[depth][normalise(part)] = part
        for names in levels.values():
            if tuple(sorted(names)) in UNSTATED:
                one, two = (shlex.quote(names[key]) for key in sorted(names))
                where = shlex.quote(str(self._root))
                self._add(
                    f"has the folders {one}/ and {two}/, and nothing says which of them is real",
                    expected="names such as real/ and fake/",
                    remedy=f"if {one} is real: (cd {where} && mv {one} real && mv {two} fake), else the other way "
                    f"round; if they are two people, {self._asks.label}",
                )

    def _check_hints(self) -> None:
        """Find what speaks against taking files without a class for real ones."""
        found = self._find_hint()
        if found:
            self._add(
                "does not say what is real and what is fake: all files would be taken for real faces",
                expected="folders such as real/ and fake/, a data set with its own lists, or a table of path and label",
                got=found,
                remedy=f"{self._asks.label}; else sort them into real/ and fake/, or {TABLE}",
            )

    def _find_hint(self) -> str:
        own = self._root.absolute().name if self._root.is_dir() else ""
        folders = sorted({part for item in self._items for part in item.parts[:-1]})
        for name, reading in [(own, read_name(own).labels), *((name, read_name(name).hints) for name in folders)]:
            words = normalise(name).split()
            if 1 in reading:
                return f"the folder {name!r} speaks of fakes"
            if DATA_SETS & {join_words(name), *words, "".join(words[:2])}:
                return f"the folder {name!r} is named like a published data set, whose own lists are not there"
        stems = [Path(item.parts[-1]).stem for item in self._items]
        videos = [Path(item.parts[-1]).stem for item in self._items if item.is_video]
        for form, what in DATA_SET_VIDEOS:
            named = [stem for stem in videos if form.fullmatch(stem)]
            if named and len(named) > 0.8 * len(videos) and len(videos) > 1:
                return f"files such as {named[0]} are named like {what}"
        spoken = [stem for stem in stems if 1 in read_name(stem).hints]
        return f"{len(spoken):,} files are named like fakes, such as {spoken[0]}" if spoken else ""

    def _check_mixed(self) -> None:
        """Find folders that stand beside splits and are none: people, or splits of another name."""
        for parent, names in self._below.items():
            splits = [name for name in names if self._read_name(parent, name).splits]
            others = [name for name in names if name not in splits and self._read_name(parent, name).person]
            if splits and others:
                self._add(
                    "has splits beside folders that are none: people, or splits of another name",
                    expected="train/, val/ and test/ alone on their level",
                    got=", ".join(f"{name}/" for name in [*splits, *others][:8]),
                    remedy=f"rename or move those that are not meant so, or {TABLE}",
                )
                return

    def _check_unsure_splits(self) -> None:
        """Find folders that may be splits, where none is one for certain."""
        for names in self._below.values():
            unsure = [name for name in names if normalise(name) in UNSURE_SPLITS]
            spoken = {name: read_name(name).split_words for name in names if read_name(name).split_words}
            if len(frozenset().union(*spoken.values())) > 1:
                unsure += spoken
            if unsure:
                self._add(
                    "has folders that may be splits",
                    expected="train/, val/ and test/",
                    got=", ".join(f"{name}/" for name in unsure[:8]),
                    remedy=f"call them train, val and test if they are, or {TABLE}",
                )
                return

    def _explain_left_out(self, label: int | None, split: Split | None) -> str:
        if self._has_classes and label is None:
            names = sorted({name for names in self._class_names.values() for name in names})
            return f"lies beside {'/ and '.join(names[:4])}/, so its label is not known; move it"
        if self._has_splits and split is None:
            return "lies beside the splits, so its split is not known; move it"
        return ""


def _list_below(items: Sequence[Item]) -> dict[tuple[str, ...], dict[str, None]]:
    """List the names of the folders in each folder, of those that have a file below them."""
    below: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for parts in {item.parts[:-1] for item in items}:
        for depth, part in enumerate(parts):
            below[parts[:depth]][part] = None
    return {parent: dict.fromkeys(sorted(names)) for parent, names in below.items()}


def _are_all_classes(names: Mapping[str, None]) -> bool:
    """Return whether each name speaks of one class, and both are there, as real_celeba beside fake_stylegan."""
    words = [read_name(name).words for name in names]
    return all(len(one) == 1 for one in words) and len(frozenset().union(*words)) == 2


def _are_all_splits(names: Mapping[str, None]) -> bool:
    """Return whether each name speaks of one split, and two of them are there, as train_v1_ann beside test_v1_ann."""
    words = [read_name(name).split_words for name in names]
    return all(len(one) == 1 for one in words) and len(frozenset().union(*words)) > 1


def _find_films(items: Sequence[Item], folders: Sequence[_Folders]) -> dict[Path, str]:
    """Find pictures without a person's folder whose names are film and frame number, and name the film of each.

    Two names with several numbers each make it unmistakable, or the word `frame`. Words of classes, cameras and
    pictures are no film.
    """
    beside: dict[tuple[str, ...], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    says: set[Path] = set()
    for item, one in zip(items, folders, strict=True):
        found = None if item.is_video or one.person or item.person else split_frame_name(Path(item.parts[-1]).stem)
        if found is not None:
            beside[item.parts[:-1]][found[0]].append(item.path)
            if found[1]:
                says.add(item.path)
    films: dict[Path, str] = {}
    for folder, named in beside.items():
        several = {film: files for film, files in named.items() if len(files) > 1}
        for film, files in several.items():
            if len(several) > 1 or says.issuperset(files):
                films |= dict.fromkeys(files, "/".join((*folder, film)))
    return films


def _place(
    item: Item,
    folders: _Folders,
    label: int | None,
    split: Split | None,
    people: str | None,
    films: Mapping[Path, str],
) -> Place:
    film = films.get(item.path, "")
    if people == "files":
        return Place(label, split, item.person, "")
    if folders.person:
        return Place(label, split, item.person or folders.person, "/".join(item.parts[:-1]))
    own = film.rpartition("/")[2]
    return Place(label, split, item.person or (f"{split}/{own}" if own and split else own), film)
