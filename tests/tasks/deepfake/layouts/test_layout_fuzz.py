"""Lists of any bytes: one error that names the file, or what can be used; never anything else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from dataset_trees import MAKERS
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.layouts.registry import find_clips
from test_layout_registry import check_layout_contract

LISTS = (".json", ".csv", ".txt")
SNIPPETS = (
    b"../../",
    b"\\",
    b"\x00",
    b"\xff",
    b"{",
    b"]",
    b'"',
    b"null",
    b"1e999",
    b"NaN",
    b"[[[",
    b"\\ud800",
    b"\n",
    b",",
)


def mutate(content: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(content) + 1)
        end = min(len(content), place + draw.choice((0, 1, 5, 40)))
        content = content[:place] + draw.choice((b"", *SNIPPETS)) + content[end:]
    return content[: draw.randrange(len(content) + 1)] if draw.random() < 0.1 else content


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "ffiw"])
def test_mutated_lists_never_give_a_traceback_or_a_path_out_of_the_tree(name: str, tmp_path: Path) -> None:
    root = MAKERS[name](tmp_path)
    lists = sorted(path for path in root.rglob("*") if path.suffix in LISTS)
    assert lists
    draw = random.Random(name)
    good = {path: path.read_bytes() for path in lists}
    for _ in range(100):
        path = draw.choice(lists)
        path.write_bytes(mutate(good[path], draw))
        message = ""
        try:
            found = find_clips(root, layout=name, label=None)[1]
        except UserError as error:
            message = error.as_text()
        else:
            check_layout_contract(root, found)
            assert all(entry.source.encode("utf-8") and entry.reason.encode("utf-8") for entry in found.rejected)
        assert not message or str(root) in message
        path.write_bytes(good[path])
