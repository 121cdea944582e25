"""What a process on a CPU takes of its machine: how many threads, and whether freed memory stays with it.

By default glibc maps each large block anew and unmaps it when it is freed. A training step allocates the same
activations in every step, so the kernel clears the same pages again and again: up to half of the time of a step. Kept
blocks are used again as they are. What is computed does not change; the peak of memory rises by 7 to 32 %.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
from pathlib import Path
from typing import Literal

Keeping = Literal["auto", "on", "off"]

LEAST_FREE = 4 * 2**30  # bytes: with less, `auto` leaves memory to the kernel
MMAP_MAX, TRIM_THRESHOLD = -4, -1  # options of mallopt (glibc's malloc.h)
VARIABLES = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
LIMITS = (  # of this process's group: the file of the limit and that of the use
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)

QUOTAS = (  # of this process's group: time that it may compute in each period
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def keep_freed_memory(choice: Keeping, device_type: str) -> str | None:
    """Tell glibc to keep the memory that is freed. To be called before the first large tensor.

    Args:
        choice: `auto` keeps it on a CPU with glibc and enough free memory, unless the environment sets glibc's own
            options; `on` keeps it wherever glibc is; `off` leaves glibc as it is.
        device_type: The type of the device that computes.

    Returns:
        Why it is not kept although it was asked for or usually is, as a sentence; None otherwise.
    """
    if choice == "off" or (choice == "auto" and device_type != "cpu"):
        return None
    if platform.libc_ver()[0] != "glibc":
        return None if choice == "auto" else "keep_freed_memory has no effect: this Python does not use glibc"
    named = [name for name in VARIABLES if name in os.environ]
    if choice == "auto" and named:
        return f"freed memory goes back to the system as {named[0]} says; keep_freed_memory=on keeps it"
    free = find_free_memory()
    if choice == "auto" and free is not None and free < LEAST_FREE:
        return (
            f"freed memory goes back to the system, since only {free / 2**30:.1f} GiB are free; a step may take up to "
            "twice as long as with --set keep_freed_memory=on"
        )
    libc = ctypes.CDLL("libc.so.6")
    if not (libc.mallopt(MMAP_MAX, 0) and libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)):
        return "keep_freed_memory has no effect: glibc refused its options"
    return None


def find_free_memory() -> int | None:
    """Find how many bytes this process may still take: of the machine, or of its control group where that has less.

    Returns:
        The bytes; None where the system does not say.
    """
    found = [free for free in (_read_machine(), *(_read_group(*files) for files in LIMITS)) if free is not None]
    return min(found, default=None)


def _read_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _read_group(limit: str, use: str) -> int | None:
    try:
        most, now = (Path(file).read_text(encoding="ascii").strip() for file in (limit, use))
    except OSError:
        return None
    return max(0, int(most) - int(now)) if most.isdigit() and now.isdigit() else None


def choose_threads(wanted: int | Literal["auto"], usual: int) -> int:
    """Choose how many threads compute.

    More threads than processors wait for each other in every operation: on two processors that are shared, a step took
    sixty times as long.

    Args:
        wanted: The number, or `auto`.
        usual: What torch has chosen, from the cores of the machine or OMP_NUM_THREADS.

    Returns:
        For `auto` the usual number, and no more than this process may use.
    """
    return wanted if wanted != "auto" else max(1, min(usual, count_processors()))


def count_processors() -> int:
    """Count the processors that this process may use: by its affinity mask and the quota of its control group."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [found for found in (_read_quota(*files) for files in QUOTAS) if found is not None]
    return max(1, min([mask, *(math.ceil(one) for one in quotas)]))


def _read_quota(*files: str) -> float | None:
    """Read how many processors a quota amounts to; None where there is none."""
    try:
        words = " ".join(Path(file).read_text(encoding="ascii") for file in files).split()
    except OSError:
        return None
    return int(words[0]) / int(words[1]) if len(words) == 2 and all(map(str.isdigit, words)) else None
