"""Files in object storage, by an address such as `s3://BUCKET/FOLDER`. fsspec, which comes with torch, does the work.

This is the one place where an address becomes a file system. Credentials, regions and other servers than the usual
ones are what the package of the storage reads from its own files and environment variables (`AWS_ENDPOINT_URL`, ...).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sharpstudent.core.arguments import advise_extra, read_path
from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain
from sharpstudent.core.io import compute_sha256, disk_errors_as_user_errors, make_folder

THREADS = 8  # files of one clip that are fetched together
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://.", re.IGNORECASE)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # scheme -> extra with its package
_CHANGED = ("LastModified", "last_modified", "updated", "mtime", "created")  # what file systems call the time of change
_NO_CREDENTIALS = ("NoCredentials", "PartialCredentials", "DefaultCredentials", "TokenRetrieval")


def is_address(text: str) -> bool:
    """Return whether a text is the address of a storage and not a path of this machine."""
    return _ADDRESS.match(text) is not None


def read_place(text: str) -> Path | str:
    """Read a path or an address, for the `type` of an option: an address stays a text."""
    return text.rstrip("/") if is_address(text) else read_path(text)


def find_user_cache() -> Path:
    """Return the folder for what this program may fetch or make again, within that of all programs."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "sharpstudent"


@dataclass(frozen=True)
class StoredFile:
    """What a storage says of a file.

    Attributes:
        size: Its size [bytes].
        changed_ns: When it was written [ns since 1970]; 0 where the storage does not say so.
    """

    size: int
    changed_ns: int


@dataclass(frozen=True)
class Storage:
    """A folder in a storage. It holds its address only, so that another process can open it anew.

    Every method raises UserError where the package of the storage is missing, and where the storage refuses, cannot be
    reached, or has no such file.

    Attributes:
        address: The address of the folder, without a slash at its end.
    """

    address: str

    def list_files(self) -> dict[str, StoredFile]:
        """List all files below the folder, by their names below it, sorted; an absent folder of a bucket is empty."""
        with self._opened() as (system, root):
            system.invalidate_cache()
            found: dict[str, dict[str, Any]] = system.find(root, detail=True)
        prefix = f"{root}/"
        return {
            path.removeprefix(prefix): StoredFile(int(about.get("size") or 0), _find_changed(about))
            for path, about in sorted(found.items())
            if path.startswith(prefix) and not path.endswith("/")  # a folder that a browser has made
        }

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Read a file.

        Args:
            name: Its name below the folder.
            start: The first byte; None for all from the beginning.
            end: The byte behind the last one; None for all to the end.

        Returns:
            The bytes.
        """
        with self._opened(name) as (system, root):
            return system.cat_file(f"{root}/{name}", start=start, end=end)

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file to this machine.

        Args:
            name: Its name below the folder.
            path: Where it is written; what a failure leaves there is no whole file.
        """
        make_folder(path.parent)
        with self._opened(name, path) as (system, root):
            system.get_file(f"{root}/{name}", str(path))

    def fetch_all(self, names: Sequence[str], folder: Path) -> None:
        """Copy files below a folder of this machine, several at a time.

        Args:
            names: Their names, which are those below `folder`, too.
            folder: The folder.
        """
        with ThreadPoolExecutor(max(1, min(THREADS, len(names)))) as threads:
            list(threads.map(lambda name: self.fetch(name, folder / name), names))

    def put(self, path: Path, name: str) -> None:
        """Write a file of this machine to the storage; what was there under its name is replaced as a whole.

        Args:
            path: The file.
            name: Its name below the folder.
        """
        with self._opened(name) as (system, root):
            system.put_file(str(path), f"{root}/{name}")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._opened(name) as (system, root), contextlib.suppress(FileNotFoundError):
            system.rm_file(f"{root}/{name}")

    @contextlib.contextmanager
    def _opened(self, name: str = "", path: Path | None = None) -> Generator[tuple[Any, str]]:
        """Open the file system, and turn what it raises into UserError; `path`: what is written on this machine."""
        system, root = _open(self.address)
        place = f"{self.address}/{name}".rstrip("/")
        try:
            yield system, root
        except UserError:
            raise
        except Exception as error:  # each file system raises errors of its own
            if path is not None and isinstance(error, OSError) and error.filename == str(path):
                with disk_errors_as_user_errors(path):
                    raise
            raise _explain_refused(place, error) from error


def verify_fetched(path: Path, sha256: str, place: str) -> None:
    """Compare a file that was fetched with its digest.

    Args:
        path: The file.
        sha256: The digest that it must have, in hexadecimal digits.
        place: Where it was fetched from, for the message.

    Raises:
        UserError: If it differs.
    """
    found = compute_sha256(path)
    if found != sha256:
        raise UserError.about(
            place,
            "is not what was put there: its digest differs",
            expected=f"sha256 {sha256}",
            got=f"sha256 {found}",
            remedy="was the set replaced meanwhile? Start again; else write it there anew",
        )


def _open(address: str) -> tuple[Any, str]:
    """Open the file system of an address, anew in each process; fsspec keeps it."""
    import fsspec
    from fsspec.registry import known_implementations

    scheme = address.partition("://")[0].lower()
    try:
        # Of the others, which have no folders, some would make a bucket that is misspelt.
        folders = {"auto_mkdir": True} if scheme in ("file", "local") else {}
        system, root = fsspec.url_to_fs(f"{scheme}://{address.partition('://')[2]}", **folders)
    except ImportError as error:
        package = known_implementations.get(scheme, {"class": scheme})["class"].partition(".")[0]
        remedy = advise_extra(_EXTRAS[scheme]) if scheme in _EXTRAS else f"pip install {package}"
        raise UserError.about(address, f"needs the package {package}", got=explain(error), remedy=remedy) from None
    except ValueError as error:
        remedy = "check the address; usual ones begin with s3://, gs:// or abfs://"
        raise UserError.about(address, "cannot be opened", got=explain(error), remedy=remedy) from None
    except Exception as error:  # credentials are looked for already here, with errors of each package's own
        raise _explain_refused(address, error) from error
    return system, str(root).rstrip("/")


def _explain_refused(place: str, error: Exception) -> UserError:
    kind, reason = type(error).__name__, explain(error)
    if any(word in kind for word in _NO_CREDENTIALS):
        what, remedy = (
            "cannot be used without credentials",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (s3://), GOOGLE_APPLICATION_CREDENTIALS (gs://), or log "
            "in with the storage's own program",
        )
    elif isinstance(error, FileNotFoundError):
        what, remedy = "is not there", "check the address, and that the bucket exists"
    elif isinstance(error, PermissionError):
        what, remedy = "is refused to this user", "give these credentials the permission, or use others"
    else:
        what, remedy = "cannot be used", "check network and address; the same command then goes on where it was"
    return UserError.about(place, what, got=f"{kind}: {reason[:300]}", remedy=remedy)


def _find_changed(about: dict[str, Any]) -> int:
    """Find the time of change in what a file system says of a file [ns]; 0 where it says nothing."""
    value = next((about[name] for name in _CHANGED if about.get(name)), 0)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return int(value * 1e9) if isinstance(value, int | float) else 0
