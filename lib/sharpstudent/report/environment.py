"""Writes `environment.json`: machine, versions and command of a result, without user name, host name or home folder."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.naming import SOURCE_FOLDER, PathHider

PACKAGES = (
    "torch", "torchvision", "timm", "efficientnet-pytorch", "albumentations", "opencv-python-headless", "numpy",
    "scikit-learn", "scipy", "pydantic", "json5", "rich", "tensorboard", "matplotlib", "safetensors", "pyarrow",
    "pillow", "jinja2", "huggingface-hub", "fsspec", "filelock",
)  # fmt: skip


def describe_environment(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Describe machine, versions, source and command line (`sys.argv` unless given) as JSON values."""
    commit, changed = _read_commit(SOURCE_FOLDER)
    return {
        "command": hide_command(sys.argv if command is None else command),
        "source": {"commit": commit, "changed": changed},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"model": _read_cpu_model(), "count": os.cpu_count(), "usable": _count_usable_cpus()},
        "threads": {
            "torch": torch.get_num_threads(),
            **{name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ},
        },
        "torch": _describe_torch(),
        "packages": {name: _read_version(name) for name in PACKAGES},
    }


def save_environment(path: Path, command: Sequence[str] | None = None) -> dict[str, Any]:
    """Write `describe_environment()` to a file.

    Args:
        path: The path of the file.
        command: The command line, `sys.argv` unless given.

    Returns:
        What was written.

    Raises:
        UserError: The disk refuses.
    """
    description = describe_environment(command)
    write_text_atomically(path, json.dumps(description, indent=2, ensure_ascii=False) + "\n")
    return description


def hide_command(command: Sequence[str]) -> list[str]:
    """Shorten the paths in the words of a command line."""
    hider = PathHider(*command)
    return [hider.word(word) for word in command]


def _describe_torch() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "version": torch.__version__,
        "cuda_build": torch.version.cuda,
        "cuda_devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "mps": torch.backends.mps.is_available(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _read_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read_cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or None


def _count_usable_cpus() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _read_commit(folder: Path) -> tuple[str | None, bool | None]:
    """Read the commit of the source and whether it was changed since; None, None outside a clone or without git."""
    commit = _run_git(folder, "rev-parse", "HEAD") if (folder / ".git").exists() else None
    if commit is None:
        return None, None
    status = _run_git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if status is None else bool(status)


def _run_git(folder: Path, *words: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
