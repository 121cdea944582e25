"""Keeping freed memory: what glibc is told, and when it is left alone."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from sharpstudent.core import memory

GIB = 2**30


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What glibc would be told; nothing reaches it, since the process of the tests goes on."""
    calls: list[tuple[int, int]] = []

    class Libc:
        def mallopt(self, option: int, value: int) -> int:
            calls.append((option, value))
            return 1

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Libc())
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(memory, "find_free_memory", lambda: 8 * GIB)
    for name in memory.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return calls


def test_on_a_cpu_with_enough_memory_nothing_is_mapped_and_nothing_trimmed(told: list[tuple[int, int]]) -> None:
    assert memory.keep_freed_memory("auto", "cpu") is None
    assert told == [(-4, 0), (-1, 2**31 - 1)]


@pytest.mark.parametrize(("choice", "device"), [("off", "cpu"), ("auto", "cuda")])
def test_it_is_left_alone_where_it_is_off_or_another_device_computes(
    told: list[tuple[int, int]], choice: memory.Keeping, device: str
) -> None:
    assert memory.keep_freed_memory(choice, device) is None
    assert told == []


def test_with_little_memory_auto_says_why_not_and_on_keeps_it(
    told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "find_free_memory", lambda: int(2.5 * GIB))
    note = memory.keep_freed_memory("auto", "cpu")
    assert note is not None
    assert "only 2.5 GiB are free" in note
    assert told == []
    assert memory.keep_freed_memory("on", "cpu") is None
    assert len(told) == 2


def test_options_of_glibc_in_the_environment_win(told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert "MALLOC_TRIM_THRESHOLD_" in (memory.keep_freed_memory("auto", "cpu") or "")
    assert told == []


def test_without_glibc_only_a_wish_is_answered(told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    assert memory.keep_freed_memory("auto", "cpu") is None
    assert "does not use glibc" in (memory.keep_freed_memory("on", "cpu") or "")
    assert told == []


def test_the_limit_of_the_control_group_counts_where_it_is_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "max").write_text(f"{3 * GIB}\n")
    (tmp_path / "current").write_text(f"{2 * GIB}\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(memory, "_read_machine", lambda: 5 * GIB)
    limits = ((str(tmp_path / "none"), str(tmp_path / "current")), (str(tmp_path / "absent"), str(tmp_path / "absent")))
    monkeypatch.setattr(memory, "LIMITS", limits)
    assert memory.find_free_memory() == 5 * GIB
    monkeypatch.setattr(memory, "LIMITS", ((str(tmp_path / "max"), str(tmp_path / "current")), *limits))
    assert memory.find_free_memory() == GIB


FAULTS = """
import ctypes, json, resource, sys
from sharpstudent.core.memory import keep_freed_memory
assert keep_freed_memory(sys.argv[1], "cpu") is None
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def use():
    block = libc.malloc(2**26)
    ctypes.memset(block, 1, 2**26)
    libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own options")
def test_a_block_that_was_freed_is_used_again_without_page_faults() -> None:
    """64 MiB are 16,384 pages of 4 KiB, or 32 huge ones."""
    faults = {
        way: json.loads(subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, check=True).stdout)
        for way in ("off", "on")
    }
    assert faults["on"] < faults["off"] / 4
