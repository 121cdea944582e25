"""Defines the record that every source gives, and reads pictures, landmarks and boxes.

Files of others may be damaged or hostile: each is read within limits, and one that cannot be used is an
UnreadableSample with the reason.

Legend: H, W height and width of a picture [px].
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sharpstudent.core.errors import Problem, ProblemList, UserError, format_count_of
from sharpstudent.core.files import check_plain, explain, open_plain, read_plain, read_rest
from sharpstudent.core.naming import name_file, printable
from sharpstudent.data.dataset import UnreadableSample

PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif"),
    *(".jp2",),
)


@dataclass(frozen=True)
class LoadedFace:
    """A picture and where the face is in it.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        landmarks: (68 or 81, 2) in dlib order [px of image]; None where the picture is a face crop without any.
        boxes: (n, 4) detector boxes left, top, right, bottom [px of image], the face's own first; None where there are
            none.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.generic] | None = None
    boxes: NDArray[np.generic] | None = None


@dataclass(frozen=True)
class Face:
    """One face by reference.

    Attributes:
        name: The path of the picture below the folder of the data set, or another name that the user knows.
        clip_id: The video or photo that it is from.
        identity: The person.
        label: Real 0, fake 1.
        load: Reads the picture. Raises UnreadableSample where it cannot.
        load_points: Reads the landmarks alone, where that costs less.
    """

    name: str
    clip_id: str
    identity: str
    label: int
    load: Callable[[], LoadedFace]
    load_points: Callable[[], NDArray[np.generic] | None] | None = None

    def __post_init__(self) -> None:
        """Make the names printable: they go into logs, tables and reports."""
        for field in ("name", "clip_id", "identity"):
            object.__setattr__(self, field, printable(getattr(self, field)))

    def read_points(self) -> NDArray[np.generic] | None:
        """Read the landmarks (68 or 81, 2); None where there are none. Raises UnreadableSample as `read` does."""
        return self.read().landmarks if self.load_points is None else self.load_points()

    def read(self) -> LoadedFace:
        """Load the face. Raises UnreadableSample with the name of the face, whichever of its files is the cause."""
        try:
            return self.load()
        except UnreadableSample as error:
            file = printable(PurePath(error.path).name)
            raise UnreadableSample(self.name, f"{'' if file in self.name else f'{file}: '}{error.reason}") from None


@dataclass(frozen=True)
class FaceSplits:
    """What a source found.

    Attributes:
        train: Training faces.
        validation: Validation faces.
        notes: Lines that say what was taken and what was left out.
        depends_on: Files that decide what the faces are, beside the pictures themselves.
        kinds: The kinds of labelled fakes in training, by name; none where fakes are made by blending.
    """

    train: Sequence[Face]
    validation: Sequence[Face]
    notes: tuple[str, ...]
    depends_on: tuple[Path, ...] = ()
    kinds: tuple[str, ...] = ()


def check_disjoint(where: Path, train: Iterable[str], validation: Iterable[str]) -> None:
    """Check that nobody is in both splits: validation would reward a model that has memorised people.

    Args:
        where: What the message names, such as the folder.
        train: People or clips in training.
        validation: People or clips in validation.

    Raises:
        UserError: If the two share any; the message names them.
    """
    shared = sorted(set(train) & set(validation))
    if shared:
        raise UserError.about(
            where=str(where),
            what=f"{len(shared)} people or clips stand in training and in validation",
            got=", ".join(shared[:5]) + (", ..." if len(shared) > 5 else ""),
            remedy="give each of them one split; --allow shared-people trains all the same",
        )


def check_apart(where: Path, files: Sequence[tuple[Path, str, str, int]], *, allow_shared: bool) -> list[list[Path]]:
    """Check that no person and no file's bytes are in two splits, and no bytes under both labels.

    Files of test are not opened.

    Args:
        where: What the message names, such as the folder.
        files: Path, person, split and label of each.
        allow_shared: Permit people and identical files that are in two splits.

    Returns:
        The pictures that have copies, as `find_copies` gives them.

    Raises:
        UserError: For what they share; the message names it.
    """
    splits_of: dict[str, set[str]] = defaultdict(set)
    for _, person, split, _ in files:
        splits_of[f"person {person}"].add(split)
    leaks = [person for person, splits in splits_of.items() if len(splits) > 1]
    about = {path: (split, label) for path, _, split, label in files}
    problems, contradicting = ProblemList(), list[str]()
    found = find_copies([path for path, (split, _) in about.items() if split != "test"])
    for copies in found:
        shown = ", ".join(map(str, copies[:4]))
        if len({about[path][0] for path in copies}) > 1:
            leaks.append(f"file content ({shown})")
        if len({about[path][1] for path in copies}) > 1:
            contradicting.append(shown)
    if contradicting:
        what = f"has {format_count_of(len(contradicting), 'picture')} under both labels"
        got, remedy = "; ".join(contradicting[:5]), "delete the copies that have the wrong label"
        problems.add(Problem(str(where), what, got=got, remedy=remedy))
    if leaks and not allow_shared:
        problems.add(
            Problem(
                str(where),
                f"{len(leaks)} people or identical files stand in two splits (training, validation, test)",
                got="; ".join(sorted(leaks)[:5]),
                remedy="give them one split (or one person folder); --allow shared-people trains all the same",
            )
        )
    problems.raise_if_any()
    return found


def leave_out_copies(
    copies: Iterable[Sequence[Path]], split_of: Mapping[Path, str | None], root: Path
) -> tuple[frozenset[Path], list[str]]:
    """Choose the copies that validation leaves out, because a picture counts once in every metric and threshold.

    Training keeps its copies.

    Args:
        copies: Pictures of the same bytes and the same label, as `check_apart` returns them.
        split_of: The split of each still, `train` or `val`; equal frames of a video are frames all the same.
        root: The folder below which messages name them.

    Returns:
        The pictures to leave out, and a line for each split that has copies.
    """
    repeated: dict[str, list[tuple[Path, Path]]] = {"val": [], "train": []}
    for same in copies:
        for split, found in repeated.items():
            here = [path for path in same if split_of.get(path) == split]
            found += [(path, here[0]) for path in here[1:]]
    effects = {"val": COUNTS_ONCE, "train": f"{WEIGHS_MORE}; delete the copies"}
    return frozenset(path for path, _ in repeated["val"]), [
        f"{split}: {line}"
        for split, found in repeated.items()
        for line in describe_copies(
            [(name_file(one, root), name_file(two, root)) for one, two in found], effects[split]
        )
    ]


COUNTS_ONCE = "each picture counts once"
WEIGHS_MORE = "in training they count each time"


def describe_copies(copies: Sequence[tuple[str, str]], effect: str = COUNTS_ONCE) -> tuple[str, ...]:
    """Say that pictures are copies of others, and what that means.

    Args:
        copies: The names of each copy and of the picture that it equals.
        effect: What that means, and what can be done about it.

    Returns:
        A line; () for no copies.
    """
    if not copies:
        return ()
    what = "1 picture is a copy of another" if len(copies) == 1 else f"{len(copies):,} pictures are copies of others"
    return (f"{what} of the same class, to the last byte, such as {copies[0][0]} (of {copies[0][1]}): {effect}",)


def find_copies(paths: Iterable[Path]) -> list[list[Path]]:
    """Find pictures of the same bytes; only files of equal size are read.

    Files that are no pictures are passed over: a web page in place of many pictures is no copy of any.
    """
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        with contextlib.suppress(OSError):  # whoever opens it names it
            by_size[check_plain(path, most_bytes=MOST_BYTES)].append(path)
    by_content: dict[str, list[Path]] = defaultdict(list)
    for size, same in by_size.items():
        for path in same if size and len(same) > 1 else ():
            with contextlib.suppress(OSError):
                by_content[hashlib.sha256(read_plain(path, most_bytes=MOST_BYTES)).hexdigest()].append(path)
    return [same for same in by_content.values() if len(same) > 1 and _is_picture(same[0])]


def keep_copies_together(held_out: Set[str], files: Iterable[tuple[Path, str]]) -> frozenset[str]:
    """Let people train who were drawn for validation, and of whom a picture is also one of somebody who trains.

    Args:
        held_out: The people who were drawn.
        files: The pictures of everybody, each with its person.

    Returns:
        The people who stay held out; those who were drawn, where nobody would.
    """
    person_of = dict(files)
    linked = [{person_of[path] for path in copies} for copies in find_copies(person_of)]
    kept = set(held_out)
    while crossing := [people for people in linked if people & kept and people - kept]:
        kept.difference_update(*crossing)
    return frozenset(kept or held_out)


def _is_picture(path: Path) -> bool:
    try:
        read_picture(path)
    except UnreadableSample:
        return False
    return True


# A photo of a medium-format camera has 102 million pixels; measured, a process then takes 1.2 GB at most to look for
# faces in it (0.1 GB for ordinary photos).
MOST_PIXELS = 120_000_000
MOST_BYTES = 500_000_000  # of a picture; an uncompressed one of MOST_PIXELS has 360 million
MOST_ARRAY_BYTES = 1_000_000  # the 81 points of 300 faces
# What OpenCV decodes, whatever the name of the file ends in; Pillow reads their headers.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "PPM", "AVIF")
FARTHEST_POSITION = 1e6  # [px]
FARTHEST_OUTSIDE = 0.5  # how far outside a point may lie, of the picture's longer side
LANDMARK_FORMS = ((68, 2), (81, 2))


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read an RGB picture, uint8 (H, W, 3).

    Kind, size and number of pixels are checked before they take memory. Raises UnreadableSample when it is missing,
    empty, no plain file, no picture, or too large.
    """
    try:
        with open_plain(path, most_bytes=MOST_BYTES) as file:
            if os.fstat(file.fileno()).st_size > 0:
                _check_pixels(file, str(path))
            content = read_rest(file, path)
    except OSError as error:
        raise UnreadableSample(str(path), explain(error)) from None
    return _decode(content, str(path), "")


def load_picture(path: Path) -> LoadedFace:
    """Read a picture that is one face crop, as `read_picture` does."""
    return LoadedFace(read_picture(path))


def decode_picture(content: bytes, name: str, remark: str = "") -> NDArray[np.uint8]:
    """Decode the bytes of a picture file.

    Args:
        content: The bytes.
        name: What the user calls the picture, for messages.
        remark: Added to the messages.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        UnreadableSample: If the bytes are no whole picture, or one of too many pixels.
    """
    if content:
        _check_pixels(io.BytesIO(content), name, remark)
    return _decode(content, name, remark)


def _decode(content: bytes, name: str, remark: str) -> NDArray[np.uint8]:
    if not content:
        raise UnreadableSample(name, f"is empty (0 bytes){remark}")
    if _is_heif(content):
        return _decode_heif(content, name, remark)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise UnreadableSample(name, f"cannot be decoded ({error.err}){remark}") from None
    if image is None:
        raise UnreadableSample(name, f"is no picture, or is cut off{remark}")
    return np.asarray(image, np.uint8)


def _check_pixels(file: BinaryIO, name: str, remark: str = "") -> None:
    """Refuse a picture whose header is unknown, or claims more than MOST_PIXELS."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures, and of odd headers
            start = file.read(HEIF_START)
            file.seek(0)
            formats = FORMATS
            if _is_heif(start):
                _register_heif(name, remark)
                formats = (HEIF,)
            with Image.open(file, formats=formats) as picture:
                width, height = picture.size
                pictures = picture.n_frames if picture.format in ANIMATED else 1  # pyright: ignore[reportAttributeAccessIssue]
    except UnreadableSample:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableSample(name, f"is too large ({error}){remark}") from None
    except Exception:  # noqa: BLE001 (the parser of hostile headers may raise anything)
        raise UnreadableSample(name, f"is no picture, or is cut off{remark}") from None
    if pictures > 1:
        what = f"is an animation of {pictures} pictures; save one of them, or make a video of it"
        raise UnreadableSample(name, f"{what}{remark}")
    if width * height > MOST_PIXELS:
        limit = f"more than the {MOST_PIXELS / 1e6:.0f} megapixels that are read"
        raise UnreadableSample(name, f"is {width} x {height} px, {limit}{remark}")


HEIF, HEIF_START = "HEIF", 40  # bytes that hold the brands
HEIF_PACKAGE = "pillow-heif~=1.8.1"  # the extra heic of pyproject.toml
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
ANIMATED = frozenset(("GIF", "WEBP", "PNG", "AVIF"))


def _is_heif(content: bytes) -> bool:
    """Return whether bytes begin like a picture of an iPhone (HEIC); AVIF begins alike, and OpenCV reads it."""
    return content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS and b"avif" not in content[8:HEIF_START]


def _register_heif(name: str, remark: str) -> None:
    """Let Pillow read HEIC. Raises UnreadableSample where pillow-heif is not installed."""
    try:
        from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]
    except ImportError:
        what = f"is a HEIC picture: pip install {HEIF_PACKAGE}, or save it as JPEG"
        raise UnreadableSample(name, f"{what}{remark}") from None
    register_heif_opener()


def _decode_heif(content: bytes, name: str, remark: str) -> NDArray[np.uint8]:
    """Decode a HEIC picture, turned upright as its tags say."""
    _register_heif(name, remark)
    try:
        with Image.open(io.BytesIO(content), formats=(HEIF,)) as picture:
            return np.asarray(picture.convert("RGB"), np.uint8)
    except Exception as error:  # noqa: BLE001 (the parser of hostile bytes may raise anything)
        raise UnreadableSample(name, f"cannot be decoded ({explain(error)}){remark}") from None


def read_landmarks(path: Path, image: NDArray[np.uint8]) -> NDArray[np.generic]:
    """Read the landmarks of every face in a picture.

    Args:
        path: The .npy file.
        image: (H, W, 3), the picture.

    Returns:
        (faces, 68 or 81, 2) [px], numbers of the file's own type.

    Raises:
        UnreadableSample: If the shape is another one, or there are values that are no number or points far outside the
            picture.
    """
    found = read_array(path)
    faces = found[None] if found.ndim == 2 else found
    if faces.ndim != 3 or len(faces) == 0 or faces.shape[1:] not in LANDMARK_FORMS:
        expected = "(points, 2) or (faces, points, 2) with 68 or 81 points"
        raise UnreadableSample(str(path), f"expected landmarks of shape {expected}, got {found.shape}")
    check_positions(str(path), faces, image)
    return faces


def read_boxes(path: Path) -> NDArray[np.generic]:
    """Read detector boxes (faces, 4), left, top, right, bottom [px]: the first two of the seven points of each face.

    Raises UnreadableSample for another shape, and for values that are no number.
    """
    found = read_array(path)
    if found.ndim != 3 or len(found) == 0 or found.shape[1:] != (7, 2):
        raise UnreadableSample(str(path), f"expected boxes of shape (faces, 7, 2), got {found.shape}")
    _check_numbers(str(path), found)
    corners = found[:, :2]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def read_array(path: Path) -> NDArray[np.generic]:
    """Read an .npy file of numbers. Raises UnreadableSample for anything else; pickles are refused."""
    try:
        content = read_plain(path, most_bytes=MOST_ARRAY_BYTES)
    except OSError as error:
        raise UnreadableSample(str(path), explain(error)) from None
    return parse_array(content, str(path))


def parse_array(content: bytes, name: str) -> NDArray[np.generic]:
    """Read an array from the bytes of an .npy file.

    Args:
        content: The bytes, all of which must belong to the array.
        name: What the user calls it, for messages.

    Returns:
        The array, of integers or floating-point numbers.

    Raises:
        UnreadableSample: If they are anything else.
    """
    if not content:
        raise UnreadableSample(name, "is empty (0 bytes)")
    file = io.BytesIO(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy parses the header as Python, and damage looks like odd syntax
            found = np.load(file, allow_pickle=False)
    except Exception as error:  # noqa: BLE001 (hostile bytes may raise anything: ValueError, MemoryError, BadZipFile)
        raise UnreadableSample(name, f"cannot be read as an array ({explain(error)})") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iuf":
        kind = found.dtype if isinstance(found, np.ndarray) else type(found).__name__
        raise UnreadableSample(name, f"expected an array of numbers, got {kind}")
    if file.read(1):
        raise UnreadableSample(name, f"is damaged: it has more bytes than its array of shape {found.shape}")
    return found


def check_positions(name: str, points: NDArray[np.generic], image: NDArray[np.uint8]) -> None:
    """Check points (..., 2) [px] of a picture.

    Args:
        name: What the user calls their file, for messages.
        points: The points.
        image: (H, W, 3), the picture.

    Raises:
        UnreadableSample: If there are values that are no number, or points far outside the picture.
    """
    flat = _check_numbers(name, points).reshape(-1, 2)
    height, width = image.shape[:2]
    reach = FARTHEST_OUTSIDE * max(height, width)
    low, high = flat.min(axis=0), flat.max(axis=0)
    if (low < -reach).any() or (high > np.array([width, height]) + reach).any():
        raise UnreadableSample(
            name,
            f"has points far outside the picture of {width} x {height} px (x {low[0]:.4g} to {high[0]:.4g}, "
            f"y {low[1]:.4g} to {high[1]:.4g})",
        )


def _check_numbers(name: str, numbers: NDArray[np.generic]) -> NDArray[np.float64]:
    positions = numbers.astype(np.float64)
    if not (np.abs(positions) < FARTHEST_POSITION).all():  # NaN is not below it either
        raise UnreadableSample(name, "holds numbers that are no pixel positions (NaN, infinite or above 1e6)")
    return positions
