"""Kills a process that saves in a loop, at random instants, and reads what it left. Run as a program by the tests.

    python killed_saver.py KIND FOLDER TRIALS SEED

A fresh process, because it forks: the children share the loaded torch and start within milliseconds. Every save writes
one number everywhere (tensor, description); the child acknowledges each finished save through a pipe. Prints one JSON
object.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from sharpstudent.checkpoint.selection import BestCheckpoints
from sharpstudent.checkpoint.store import load_checkpoint, load_run_state, save_checkpoint, save_run_state

SIZE = 500_000  # float32: 2 MB, so that a save takes milliseconds and most kills fall into one


def save(kind: str, folder: Path, number: int, best: BestCheckpoints) -> None:
    tensors = {"model": {"w": torch.full((SIZE,), float(number))}}
    if kind == "checkpoint":
        save_checkpoint(folder / "a.pth", tensors, about={"number": number})
    elif kind == "run_state":
        save_run_state(folder, tensors=tensors, progress={"number": number})
    else:
        value = number / 1000  # always a new best: every save touches best_model.pth
        best.consider(number, value, lambda path: save_checkpoint(path, tensors, about={"number": number}))


def load(kind: str, folder: Path) -> tuple[int, str | None]:
    """The number that was read, and the note if there was one. Raises if anything is torn."""
    if kind == "run_state":
        state, notes = load_run_state(folder, lambda state: state)
        tensors, about, note = state.tensors, state.about, "; ".join(notes) or None
    else:
        loaded = load_checkpoint(folder / ("a.pth" if kind == "checkpoint" else "best_model.pth"))
        tensors, about, note = loaded.tensors, loaded.about, "; ".join(loaded.notes) or None
    values = tensors["model"]["w"]
    if not (values == about["number"]).all() or len(values) != SIZE:
        raise AssertionError(f"mixed content: {values[:3]} with {about}")
    return about["number"], note


def main(kind: str, folder: Path, trials: int, seed: int) -> None:
    torch.set_num_threads(1)
    chance = random.Random(seed)
    best = BestCheckpoints(folder, keep=2, metric="val_auc")
    save(kind, folder, 1, best)
    started = time.monotonic()
    save(kind, folder, 2, best)
    window = min(0.5, max(0.02, 4 * (time.monotonic() - started)))  # a kill falls into one of about four saves
    found, failures, notes, saves, next_number = 2, [], 0, 0, 3
    for _ in range(trials):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            for number in range(next_number, 10**6):
                save(kind, folder, number, best)
                os.write(writer, number.to_bytes(4, "little"))
        os.close(writer)
        time.sleep(chance.uniform(0, window))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acknowledged = os.read(reader, 1 << 20)
        os.close(reader)
        last = int.from_bytes(acknowledged[-4:], "little") if acknowledged else found
        saves += len(acknowledged) // 4
        try:
            found, note = load(kind, folder)
            notes += note is not None
            if found < last:
                failures.append(f"save {last} was acknowledged, {found} was read")
        except Exception as error:  # noqa: BLE001 (counted and reported)
            failures.append(f"{type(error).__name__}: {error}")
        next_number = max(found, last) + 1
    print(json.dumps({"trials": trials, "saves": saves, "failures": failures, "notes": notes}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
