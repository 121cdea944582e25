"""What the clauses of a trained model say, and what they cost as bits.

python -m sharpstudent.tasks.tokens rules output/tokens_distilled_*
python -m sharpstudent.tasks.tokens overlays output/tokens_distilled_* --samples 8
python -m sharpstudent.tasks.tokens packed output/tokens_distilled_* --against model.int8.onnx
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sharpstudent.core.arguments import read_number, read_path
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.io import make_folder, write_text_atomically
from sharpstudent.core.naming import printable
from sharpstudent.core.shipped import find_shipped

SAMPLES = {"rules": 1000, "overlays": 8, "packed": 1000}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of the commands."""
    read = _parse(sys.argv[1:] if argv is None else argv)
    model, task = _load(read)
    images, labels, ids = _take(task, read.data, read.samples or SAMPLES[read.command])
    folder: Path = read.out or Path("output") / f"tokens_{read.command}"
    from sharpstudent.tasks.tokens import rules

    if read.command == "rules":
        found = rules.list_rules(model, images, labels, task.classes)
        paths = rules.write_rules(folder, found)
        _say(f"{len(found)} clauses, described by {len(ids)} pictures: {paths[1]}, {paths[0].name}")
    elif read.command == "overlays":
        paths = rules.write_overlays(folder, images, rules.describe_pictures(model, images, labels, ids, task.classes))
        _say(f"{len(ids)} pictures with their data: {folder}/{paths[0].name} ...")
    else:
        _pack(read, model, images, labels, folder)


def _parse(argv: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser(
        "python -m sharpstudent.tasks.tokens", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("command", choices=tuple(SAMPLES), help="what is written")
    add("model", metavar="MODEL", type=read_path, help="a run folder, a checkpoint, or a model of the package")
    add("--data", metavar="SPLIT", default="test", help="train, validation or test (%(default)s)")
    add("--config", metavar="FILE", type=read_path, help="a config with the keys of the data, for a file in no run")
    add("--samples", metavar="N", type=read_number(int, 1, 1_000_000), help=f"pictures that are read: {SAMPLES}")
    add("--out", metavar="FOLDER", type=read_path, help="default: output/tokens_COMMAND")
    add("--against", metavar="FILE", type=read_path, nargs="*", default=[], help="packed: exports to time beside it")
    return parser.parse_args(argv)


def _load(read: Any) -> tuple[Any, Any]:
    """Open the model and its task; raise UserError for a model without clauses."""
    import torch

    from sharpstudent.evaluation.command_line import ModelRequest
    from sharpstudent.evaluation.opened import open_checkpoint
    from sharpstudent.evaluation.tables import load_config, read_run_config
    from sharpstudent.tasks.tokens.task import TokensTask
    from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer

    options = {} if read.config is None else {"config": str(read.config)}
    path = find_shipped(str(read.model)) or read.model
    opened = open_checkpoint(ModelRequest(path, options=options), TokensTask, torch.device("cpu"))
    if not isinstance(opened.model, UnifiedTMTransformer) or not opened.model.machines:
        raise UserError.about(str(read.model), "has no clauses", "a tm_vit, tm_swin, deeptm_vit or deeptm_swin")
    config = read_run_config(path, TokensTask) if read.config is None else load_config(read.config, TokensTask)
    return opened.model, TokensTask(None if config is None else config.task_section, opened.about.get("facts"))


def _take(task: Any, split: str, count: int) -> tuple[Any, list[int], list[str]]:
    """Take the first pictures of a split, spread evenly over it: pictures (R, channels, S, S), labels, names."""
    import numpy as np
    import torch

    (samples,) = task.open_data(split)
    places = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int))
    made = [samples.make(int(place), np.random.default_rng(0)) for place in places]
    images = torch.from_numpy(np.concatenate([one.inputs["image"] for one in made]))
    return images, [int(one.targets["label"][0]) for one in made], [str(one.rows["id"][0]) for one in made]


def _pack(read: Any, model: Any, images: Any, labels: list[int], folder: Path) -> None:
    import numpy as np
    import torch

    from sharpstudent.evaluation.command_line import ModelRequest
    from sharpstudent.evaluation.opened import open_checkpoint
    from sharpstudent.tasks.tokens.packed import BATCH, measure_packed
    from sharpstudent.tasks.tokens.task import TokensTask

    device = torch.device("cpu")
    others = [(path.name, open_checkpoint(ModelRequest(path), TokensTask, device).model) for path in read.against]
    found = measure_packed(model, images, np.array(labels), others=others)
    make_folder(folder)
    write_text_atomically(folder / "packed.json", json.dumps(asdict(found), indent=2) + "\n")
    accuracy, agreement = found.accuracy, found.agreement
    shown = ", ".join(f"{name} {value:.4f}" for name, value in accuracy.items())
    _say(f"accuracy on {len(labels)} pictures: {shown}")
    _say(f"same answer as the hard float model: packed {agreement['packed']:.2%}, soft masks {agreement['soft']:.2%}")
    sizes, core = found.core_bytes, found.core_ms
    smaller, faster = sizes["float"] / sizes["packed"], core["float"] / core["packed"]
    _say(f"machines: {sizes['float']:,} bytes as float32, {sizes['packed']:,} packed ({smaller:.0f} times smaller)")
    _say(
        f"machines, {BATCH} pictures, processor time: {core['float']:.1f}, {core['packed']:.1f} ms ({faster:.1f} times)"
    )
    times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in found.model_ms.items())
    _say(f"whole models, {BATCH} pictures, processor time, one thread: {times}")
    _say(f"also in {folder / 'packed.json'}")


def _say(line: str) -> None:
    print(printable(line), flush=True)


if __name__ == "__main__":
    with exit_codes():
        main()
