"""Damage to a file: flipped bits, cut ends, no permission, and things that are no file under a file's name."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

NOBODY = 65534


def flip_bits(content: bytes, count: int, *, seed: int = 7, until: int | None = None) -> Iterator[bytes]:
    """Copies of `content`, each with one bit flipped, in the first `until` bytes."""
    rng = random.Random(seed)
    for _ in range(count):
        place, bit = rng.randrange(until or len(content)), 1 << rng.randrange(8)
        yield content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def cut_off(content: bytes) -> Iterator[bytes]:
    """The content, cut at places spread over it; the empty file first."""
    for share in (0.0, 0.01, 0.2, 0.5, 0.8, 0.99):
        yield content[: int(share * len(content))]
    yield content[:-1]


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_folder(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:  # its whole path may be too long
        made.bind(path.name)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "named pipe": make_pipe,
    "device": make_device,
    "folder": make_folder,
    "socket": make_socket,
    "link to itself": make_loop,
}


@contextlib.contextmanager
def without_permission(path: Path) -> Generator[None]:
    """Let nobody read `path`: the user root, whom no mode stops, becomes an ordinary one meanwhile."""
    mode, is_root, opened = path.stat().st_mode, os.geteuid() == 0, dict[Path, int]()
    for folder in path.resolve().parents if is_root else ():  # pytest's folders are closed to that user
        if not folder.stat().st_mode & 0o001:
            opened[folder] = folder.stat().st_mode
            folder.chmod(0o755)
    path.chmod(0)
    try:
        if is_root:
            os.seteuid(NOBODY)
        yield
    finally:
        if is_root:
            os.seteuid(0)
        path.chmod(mode)
        for folder, before in opened.items():
            folder.chmod(before)


@contextlib.contextmanager
def no_hang() -> Generator[None]:
    """Fail where the body hangs, as it does where a pipe is opened; a busy machine is only slow."""

    def stop(*_: object) -> None:
        raise AssertionError("it hangs: nothing came within a minute")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
