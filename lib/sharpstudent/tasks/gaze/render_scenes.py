"""Writes rendered scenes in the true form of GazeFollow or VideoAttentionTarget, from photos of faces.

    python -m sharpstudent.tasks.gaze.render_scenes data/demo data/gaze_scenes

Nobody stands in two of the parts train, validation and test. Beside the tables of the data set there are
{train,validation,test}_preprocessed.json with what these cannot say: who a head is, and where the things are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sharpstudent.core.arguments import EXIT_CODES, Parser, read_number, read_path
from sharpstudent.core.errors import UserError, exit_codes, format_count_of
from sharpstudent.core.io import make_folder, write_bytes_atomically, write_text_atomically
from sharpstudent.core.naming import format_csv, printable
from sharpstudent.tasks.gaze.find_heads import load_detector, load_mesh
from sharpstudent.tasks.gaze.portraits import Portrait, list_photos, make_portrait
from sharpstudent.tasks.gaze.rendered_scene import (
    PEOPLE,
    PICTURE,
    Looking,
    RenderedScene,
    build_room,
    draw_scene,
    shrink,
)

PROGRAM = "-m sharpstudent.tasks.gaze.render_scenes"
PARTS = {"train": 0.7, "validation": 0.1, "test": 0.2}  # shares of the people
FRAMES = 12  # of a clip
STEADY = 4  # frames for which a look lasts
AWAY = 0.25  # share of the looks of a clip that go out of the picture
LEAST_PEOPLE = 10
SCENES = {"train": 1200, "validation": 80, "test": 400}


def main(argv: Sequence[str]) -> None:
    """Render what the command line asks for."""
    purpose = "Render scenes of people who look at things, in the form of GazeFollow or VideoAttentionTarget."
    parser = Parser(PROGRAM, purpose, more=EXIT_CODES, examples=(f"{PROGRAM} data/demo data/gaze_scenes",))
    add = parser.add_argument
    add("folders", metavar="PHOTOS", nargs="+", type=read_path, help="folders of photos of one face each")
    add("out", metavar="OUT", type=read_path, help="the folder to write")
    add("--layout", choices=("gazefollow", "vat"), default="gazefollow", help="default: %(default)s")
    count = read_number(int, 1, 1_000_000)
    for part, scenes in SCENES.items():
        text = f"scenes of {part} (%(default)s); with vat clips of {FRAMES} frames"
        add(f"--{part}", metavar="N", type=count, default=scenes, help=text)
    text = "side of the pictures, pixels (%(default)s)"
    add("--side", metavar="PX", type=read_number(int, 64, PICTURE), default=PICTURE, help=text)
    add("--seed", metavar="N", type=read_number(int, 0, 2**32 - 1), default=0, help="default: %(default)s")
    read = parser.read(argv)
    casts = split_people(make_portraits(read.folders), read.seed)
    for part, cast in casts.items():
        number = getattr(read, part)
        people = len({one.person for one in cast})
        write = write_pictures if read.layout == "gazefollow" else write_clips
        write(Place(read.out, part, read.side, read.seed), cast, number)
        unit = "scene" if read.layout == "gazefollow" else "clip"
        print(printable(f"{read.out}: {part}, {format_count_of(number, unit)} with {people} people"), flush=True)


@dataclass(frozen=True)
class Place:
    """Where scenes are written, and how.

    Attributes:
        root: The folder of the data set.
        part: `train`, `validation` or `test`.
        side: Side of the pictures [px].
        seed: Draws all scenes.
    """

    root: Path
    part: str
    side: int
    seed: int

    def open_generator(self, number: int) -> np.random.Generator:
        """Make the generator of one scene or clip."""
        return np.random.default_rng([self.seed, 1, list(PARTS).index(self.part), number])

    def write_picture(self, name: str, drawn: RenderedScene) -> RenderedScene:
        """Write the picture of a scene at the wanted side, and return the scene with labels of that side."""
        small = shrink(drawn, self.side)
        done, content = cv2.imencode(".jpg", small.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        assert done
        make_folder((self.root / name).parent)
        write_bytes_atomically(self.root / name, content.tobytes())
        return small

    def write_labels(self, entries: Sequence[dict[str, Any]]) -> None:
        """Write the prepared JSON of the part."""
        make_folder(self.root)
        write_text_atomically(self.root / f"{self.part}_preprocessed.json", json.dumps(entries) + "\n")


def make_portraits(folders: Sequence[Path]) -> list[Portrait]:
    """Make a portrait of every photo that can be used, and say how many cannot.

    Raises:
        UserError: Where too few people are left.
    """
    photos, made, refused = list_photos(folders), list[Portrait](), list[str]()
    detector, mesh = load_detector(), load_mesh()
    for path, person in photos:
        one = make_portrait(path, person, detector, mesh)
        if isinstance(one, str):
            refused.append(f"{path.name}: {one}")
        else:
            made.append(one)
    if refused:
        shown = f"{'; '.join(refused[:3])}{' ...' if refused[3:] else ''}"
        print(printable(f"{len(refused)} of {len(photos)} photos are not used: {shown}"))
    people = {one.person for one in made}
    if len(people) < LEAST_PEOPLE:
        raise UserError.about(
            ", ".join(map(str, folders)),
            f"shows {len(people)} people, too few for three parts",
            expected=f"frontal photos of {LEAST_PEOPLE} people or more",
            remedy="name further folders",
        )
    return made


def split_people(portraits: Sequence[Portrait], seed: int) -> dict[str, list[Portrait]]:
    """Divide portraits by people into the parts train, validation and test; each has two people or more."""
    people = sorted({one.person for one in portraits})
    order = np.random.default_rng([seed, 0]).permutation(len(people))
    least = max(PEOPLE, round(PARTS["validation"] * len(people)))
    held = max(PEOPLE, round(PARTS["test"] * len(people)))
    bounds = {"validation": order[:least], "test": order[least : least + held], "train": order[least + held :]}
    named = {part: {people[one] for one in bounds[part]} for part in PARTS}
    return {part: [one for one in portraits if one.person in named[part]] for part in PARTS}


def _choose(rng: np.random.Generator, cast: Sequence[Portrait]) -> list[Portrait]:
    """Choose a photo of each of two people."""
    people = sorted({one.person for one in cast})
    chosen = [people[one] for one in rng.choice(len(people), PEOPLE, replace=False)]
    photos = [[one for one in cast if one.person == person] for person in chosen]
    return [some[int(rng.integers(len(some)))] for some in photos]


def write_pictures(place: Place, cast: Sequence[Portrait], count: int) -> None:
    """Write single pictures, their table in the form of GazeFollow, and the prepared JSON.

    Args:
        place: Where.
        cast: Who is in the scenes.
        count: How many scenes.
    """
    entries, rows = list[dict[str, Any]](), list[list[object]]()
    for number in range(count):
        rng = place.open_generator(number)
        room = build_room(rng)
        targets = [int(rng.integers(len(room.things))) for _ in range(PEOPLE)]
        name = f"{place.part}/{number // 1000:08}/{number:08}.jpg"
        drawn = place.write_picture(name, draw_scene(room, _choose(rng, cast), targets))
        entries.append(_make_entry(name, drawn))
        rows += [_make_row(name, len(rows) + at, one, place) for at, one in enumerate(drawn.people)]
    place.write_labels(entries)
    if place.part != "validation":  # GazeFollow has no such part
        write_text_atomically(place.root / f"{place.part}_annotations_release.txt", format_csv(rows))


def _make_row(name: str, number: int, one: Looking, place: Place) -> list[object]:
    """Make a row of GazeFollow's table: 17 columns in training, and 16, without inout, in the test."""
    assert one.target is not None
    (x0, y0, x1, y1), side = one.box, place.side
    body = (x0 / side, y0 / side, (x1 - x0) / side, 1 - y0 / side)
    eyes = ((x0 + x1) / 2 / side, (y0 + y1) / 2 / side)
    gaze = tuple(value / side for value in one.target)
    inout = (1,) if place.part == "train" else ()
    return [name, number, *body, *eyes, *gaze, *one.box, *inout, "rendered", one.person]


def _make_entry(name: str, drawn: RenderedScene, group: str | None = None) -> dict[str, Any]:
    side = len(drawn.image)
    heads = [
        {
            "bbox": one.box,
            "bbox_norm": [value / side for value in one.box],
            **dict(zip(("gazex", "gazey"), one.target or (-1.0, -1.0), strict=True)),
            **dict(zip(("gazex_norm", "gazey_norm"), _share(one.target, side), strict=True)),
            "inout": int(one.target is not None),
            "person": one.person,
        }
        for one in drawn.people
    ]
    things = [_share(thing, side) for thing in drawn.things]
    more = {} if group is None else {"group": group}
    return {"path": name, "heads": heads, "width": side, "height": side, "objects": things, **more}


def _share(point: tuple[float, float] | None, side: int) -> tuple[float, float]:
    return (-1.0, -1.0) if point is None else (point[0] / side, point[1] / side)


def write_clips(place: Place, cast: Sequence[Portrait], count: int) -> None:
    """Write clips in the form of VideoAttentionTarget: people look from thing to thing, and away.

    Args:
        place: Where.
        cast: Who is in the clips.
        count: How many clips.
    """
    entries = list[dict[str, Any]]()
    for number in range(count):
        rng = place.open_generator(number)
        room, chosen = build_room(rng), _choose(rng, cast)
        show, clip = f"{place.part} {number:05}", f"100_{99 + FRAMES}"
        lines: list[list[str]] = [[] for _ in chosen]
        looks: list[int | None] = []
        for frame in range(FRAMES):
            if frame % STEADY == 0:
                looks = [None if rng.random() < AWAY else int(rng.integers(len(room.things))) for _ in chosen]
            name = f"images/{show}/{clip}/{100 + frame:08}.jpg"
            drawn = place.write_picture(name, draw_scene(room, chosen, looks))
            entries.append(_make_entry(name, drawn, show))
            for person, one in enumerate(drawn.people):
                gaze = one.target or (-1, -1)
                lines[person].append(",".join(map(str, (Path(name).name, *one.box, *gaze))))
        folder = place.root / "annotations" / place.part / show / clip
        make_folder(folder)
        for person, text in enumerate(lines):
            write_text_atomically(folder / f"s{person:02}.txt", "\n".join(text) + "\n")
    place.write_labels(entries)


if __name__ == "__main__":
    with exit_codes():
        main(sys.argv[1:])
