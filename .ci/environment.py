"""Install the environment of this checkout from a lock file, and say in a few lines what is being done.

    python .ci/environment.py VENV [--dev] [--torch cpu]

A lock file has the exact version and the sha256 of every package (`make lock` writes it). pip fetches them from the
registry that its own configuration names. What pip prints goes to VENV/install.log; here, one line says how far it is.
Plain Python 3.11 or newer: this runs before anything is installed.

    --dev        also what tests and checks need (requirements-dev.txt)
    --torch cpu  the CPU build of torch, from TORCH_CPU_INDEX (by default the index of its makers)

Exit codes: 0 installed; 2 pip failed, or there is no CPU build to be had.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
OF_CUDA = re.compile(r"(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==")
WITHOUT_TORCH = "without-torch.txt"  # the lock file of an environment with the CPU build
GIGABYTES = {"cuda": 6.5, "cpu": 1.6}  # on disk, on Linux
SECONDS = 5.0  # between two lines, where the output is no terminal


def main(words: Sequence[str]) -> int:
    """Install, and return the exit code."""
    parser = argparse.ArgumentParser(prog=".ci/environment.py", description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", metavar="VENV", type=Path)
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    parser.add_argument("--torch", choices=("cuda", "cpu"), help="the build of torch (as before, else cuda)")
    read = parser.parse_args(words)
    folder, log = read.folder, read.folder / "install.log"
    begun = time.monotonic()
    if not find_program(folder, "pip").exists():
        print(f"{folder}: a new environment of Python {sys.version.split()[0]}", flush=True)
        venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    lock = ROOT / ("requirements-dev.txt" if read.dev else "requirements.txt")
    kind = read.torch or ("cpu" if (folder / WITHOUT_TORCH).exists() else "cuda")
    is_cpu = kind == "cpu" and sys.platform == "linux"  # elsewhere the plain build is that of the CPU
    free, needed = shutil.disk_usage(folder).free / 1e9, GIGABYTES["cpu" if is_cpu else "cuda"]
    print(
        f"{folder}: the packages of {lock.name}, up to {needed} GB where they are new ({free:.0f} GB are free)",
        flush=True,
    )
    with open(log, "w", encoding="utf-8") as file:
        for title, options in list_steps(folder, lock, is_cpu=is_cpu):
            if install(folder, title, options, file.fileno(), len(read_lock(lock))) != 0:
                return explain(log, title)
    print(f"{folder}: ready after {format_time(time.monotonic() - begun)}")
    return 0


def list_steps(folder: Path, lock: Path, *, is_cpu: bool) -> Iterator[tuple[str, list[str]]]:
    """List the calls of pip, with a title each. A lock file is whole, so that pip has nothing to resolve."""
    if is_cpu:
        index = os.environ.get("TORCH_CPU_INDEX", CPU_INDEX)
        builds = [f"{name}=={version}+cpu" for name, version in read_lock(lock) if name in ("torch", "torchvision")]
        yield f"the CPU build of torch, from {index}", ["--index-url", index, *builds]
        (folder / WITHOUT_TORCH).write_text("".join(leave_out(lock, OF_CUDA)), encoding="utf-8")
        lock = folder / WITHOUT_TORCH
    else:
        (folder / WITHOUT_TORCH).unlink(missing_ok=True)
    yield "packages", ["--require-hashes", "--requirement", str(lock)]
    yield "SharpStudent itself", ["--editable", str(ROOT)]


def read_lock(lock: Path) -> list[tuple[str, str]]:
    """Read name and version of each package of a lock file."""
    return re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE)


def leave_out(lock: Path, pattern: re.Pattern[str]) -> Iterator[str]:
    """Write the lines of a lock file without those of the packages that match."""
    is_kept = True
    for line in lock.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.startswith((" ", "#")):
            is_kept = pattern.match(line) is None
        if is_kept:
            yield line


class Progress:
    """One line about what pip does: rewritten on a terminal, else a new one every few seconds.

    Attributes:
        doing: What it does at the moment.
        count: How many packages it has looked at.
    """

    def __init__(self, title: str, total: int) -> None:
        """Begin a step of that title and number of packages."""
        self.doing, self.count = title, 0
        self._total, self._begun, self._is_over = total, time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._tell_now_and_then, daemon=True)
        self._thread.start()

    def read(self, line: str) -> None:
        """Take a line of pip's."""
        looked = re.match(r"(?:Collecting|Requirement already satisfied:|Obtaining) (\S+)", line)
        loading = re.match(r"\s*(?:Downloading|Using cached) (\S+?)(?:\.metadata)?(?: \((.+)\))?$", line)
        if looked is not None:
            self.count += 1
            self.doing = f"{self.count} of {self._total}: {looked[1].split('/')[-1]}"
        elif loading is not None:
            size = f", {loading[2]}" if loading[2] else ""
            self.doing = f"{self.count} of {self._total}: {loading[1].split('/')[-1].split('-cp')[0]}{size}"
        elif line.startswith("Installing collected packages"):
            self.doing = "unpacking all of them; this takes a minute or two"

    def end(self) -> None:
        """Write no further line."""
        self._is_over.set()
        self._thread.join()
        if sys.stdout.isatty():
            print("\r\x1b[K", end="", flush=True)

    def _tell_now_and_then(self) -> None:
        is_terminal, told = sys.stdout.isatty(), ""
        while not self._is_over.wait(0.5 if is_terminal else SECONDS):
            line = f"  {format_time(time.monotonic() - self._begun)}  {self.doing}"
            if is_terminal:
                print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
            elif self.doing != told:
                print(line, flush=True)
            told = self.doing


def install(folder: Path, title: str, options: Sequence[str], log: int, total: int) -> int:
    """Run pip once.

    Args:
        folder: The environment.
        title: What is installed.
        options: The words after `pip install`.
        log: The descriptor of the file that keeps what pip prints.
        total: How many packages there may be.

    Returns:
        pip's exit code.
    """
    command = [
        str(find_program(folder, "python")),
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--disable-pip-version-check",
        *options,
    ]
    os.write(log, f"$ {' '.join(command)}\n".encode())
    progress = Progress(title, total)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, errors="replace") as process:
        assert process.stdout is not None
        for line in process.stdout:
            os.write(log, line.encode())
            progress.read(line)
    progress.end()
    return process.returncode


def find_program(folder: Path, name: str) -> Path:
    """Find where a program of an environment lies."""
    return folder / (f"Scripts/{name}.exe" if os.name == "nt" else f"bin/{name}")


def explain(log: Path, title: str) -> int:
    """Say why an installation has failed, and what to do; return the exit code."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    first = next((place for place, line in enumerate(lines) if line.startswith("ERROR")), max(len(lines) - 6, 0))
    if any("NewConnectionError" in line or "ConnectTimeout" in line for line in lines):
        print(f"{title}: could not be reached; is there a network?", file=sys.stderr)
    told = [f"  {line}" for line in lines[first : first + 6] if line.strip()]
    print("\n".join([f"{title}: pip could not install this:", *told]), file=sys.stderr)
    if "CPU build" in title:
        print("Without TORCH=cpu, the CUDA build of pip's own registry is installed: make setup", file=sys.stderr)
        print("or name another index of CPU builds: TORCH_CPU_INDEX=URL make TORCH=cpu setup", file=sys.stderr)
    print(f"All that pip printed: {log}", file=sys.stderr)
    return 2


def format_time(seconds: float) -> str:
    """Write a time as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
