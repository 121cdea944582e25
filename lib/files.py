"""Files that are whole or absent: atomic writes, checksums, and members fetched from the package registry."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from lib.errors import Problem, UserError

TEMPORARY_SUFFIX = ".partial"


@contextlib.contextmanager
def atomic_path(path: Path, *, needed_bytes: int | None = None) -> Generator[Path, None, None]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed over `path`, on error removed.

    A reader therefore sees the old file or the new one, never half of one, whatever kills the writer.
    Raises UserError when the folder cannot be written or the disk is full; the old file is intact. `needed_bytes` is
    named in that error where the writer knows it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        _fsync_folder(path.parent)
    except OSError as error:
        raise UserError(
            Problem(
                where=str(path),
                what=f"could not be written ({error.strerror or error})",
                expected=None if needed_bytes is None else f"room for {needed_bytes:,} bytes",
                got=_describe_free_space(path.parent),
                remedy="free space on the disk or make the folder writable; the previous file, if any, is intact",
            )
        ) from error
    finally:
        # A folder that is a file or read-only refuses this too; the error above says so already.
        with contextlib.suppress(OSError):
            temporary.unlink()


def _describe_free_space(folder: Path) -> str | None:
    try:
        return f"{shutil.disk_usage(folder).free:,} bytes free"
    except OSError:
        return None


def write_bytes_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path` so that a crash leaves the old file or the new one."""
    with atomic_path(path, needed_bytes=len(content)) as temporary:
        temporary.write_bytes(content)


def write_text_atomically(path: Path, content: str) -> None:
    """As `write_bytes_atomically`, UTF-8."""
    write_bytes_atomically(path, content.encode("utf-8"))


def remove_stray_temporaries(folder: Path) -> list[Path]:
    """Delete what killed writers left in `folder`; returns what was removed."""
    strays = sorted(folder.glob(f".*{TEMPORARY_SUFFIX}"))
    for stray in strays:
        stray.unlink(missing_ok=True)
    return strays


def compute_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class PackageMember:
    """One file inside a package of the Python registry: pinned by version and sha256, taken out without installing."""

    package: str
    version: str
    member: str
    sha256: str


def fetch_package_members(members: dict[Path, PackageMember]) -> list[Path]:
    """Make every destination exist with the right sha256; returns those that had to be fetched (none on a second run).

    All members must be of one package and version: its archive is downloaded once, with pip, into a temporary folder.
    Raises UserError when the registry cannot be reached or a file is not the expected one.
    """
    missing = {path: m for path, m in members.items() if not (path.is_file() and compute_sha256(path) == m.sha256)}
    if not missing:
        return []
    requirements = {f"{m.package}=={m.version}" for m in missing.values()}
    if len(requirements) != 1:
        raise ValueError(f"members of several packages at once: {sorted(requirements)}")
    with tempfile.TemporaryDirectory() as folder:
        archive = _download_archive(requirements.pop(), Path(folder))
        for path, member in missing.items():
            content = _read_member(archive, member.member)
            found = hashlib.sha256(content).hexdigest()
            if found != member.sha256:
                raise UserError(
                    Problem(
                        where=f"{member.package}=={member.version}: {member.member}",
                        what="is not the file this version of SharpStudent was made for; nothing was written",
                        expected=f"sha256 {member.sha256}",
                        got=f"sha256 {found}",
                        remedy="check the package registry that pip is set up to use",
                    )
                )
            write_bytes_atomically(path, content)
    return list(missing)


def _download_archive(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = sorted(p for p in folder.iterdir() if p.is_file())
    if done.returncode != 0 or len(archives) != 1:
        tail = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise UserError(
            Problem(
                where=requirement,
                what="could not be downloaded from the package registry",
                got=tail or f"pip exit code {done.returncode}",
                remedy="check the network and run the command again: what is already here is not fetched twice",
            )
        )
    return archives[0]


def _read_member(archive: Path, member: str) -> bytes:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(member)
        with tarfile.open(archive) as sdist:
            file = sdist.extractfile(member)
            if file is None:
                raise KeyError(member)
            return file.read()
    except KeyError:
        raise UserError(
            Problem(where=archive.name, what=f"has no member {member}", remedy="report this: the package changed")
        ) from None
