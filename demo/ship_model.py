"""Make a trained run's best model one that comes with the package: half precision, where its answers agree.

    python demo/ship_model.py RUN NAME

Writes lib/sharpstudent/shipped/NAME.safetensors and its .sha256; the card NAME.md beside them is written by hand, and
its title, `# NAME: ...`, says in one line what the model is for. Kernels and matrices are stored in half precision,
everything else as it is, and the file is compared with the run's model on the run's validation samples: it is written
only where it loses no more than an export may. What is ordinary for the model (best_model.pth.familiar) goes along.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path
from sharpstudent.core.errors import UserError, exit_codes

if TYPE_CHECKING:
    from sharpstudent.data.dataset import Samples
    from sharpstudent.evaluation.opened import OpenedModel
    from sharpstudent.task import Task


@dataclass(frozen=True)
class ShipRequest:
    """The command line.

    Attributes:
        run: The run folder.
        name: The name of the shipped model.
        most_megabytes: The largest file that is shipped [MB].
        workers: How many loader processes run.
    """

    run: Path
    name: str
    most_megabytes: float
    workers: int


def main() -> None:
    """Write the files."""
    examples = ["demo/ship_model.py output/free_free_11_30_08_35_58 deepfake-small"]
    parser = Parser("demo/ship_model.py", str(__doc__), more=EXIT_CODES, examples=examples)
    parser.add_argument("run", metavar="RUN", type=read_path, help="run folder of the model")
    parser.add_argument("name", metavar="NAME", help="name by which commands call it: small letters, digits, hyphens")
    text = "largest file that is shipped, in megabytes (%(default)g)"
    parser.add_argument("--most-megabytes", metavar="X", type=float, default=8.0, help=text)
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="loader processes (%(default)s)")
    request = ShipRequest(**vars(parser.read(sys.argv[1:])))
    with tempfile.TemporaryDirectory() as folder:
        ship(request, Path(folder))


def ship(request: ShipRequest, folder: Path) -> None:
    """Make the files in a temporary folder, and move them where they belong.

    Raises:
        UserError: For a file that is too large, or worse than the model.
    """
    import torch
    from sharpstudent.core.archive import BEST
    from sharpstudent.core.io import compute_sha256
    from sharpstudent.core.shipped import DIGEST_ENDING, ENDING, FOLDER
    from sharpstudent.deploy.familiar import store_run_reference
    from sharpstudent.evaluation.command_line import ModelRequest, choose_task
    from sharpstudent.evaluation.renderer import load_renderer
    from sharpstudent.evaluation.tables import VALIDATION, load_config

    renderer = load_renderer(choose_task([str(request.run)]))
    cpu, path = torch.device("cpu"), folder / f"{request.name}{ENDING}"
    path.write_bytes(render_half(request.run / BEST))
    megabytes = path.stat().st_size / 1e6
    if megabytes > request.most_megabytes:
        raise UserError.about(
            request.name, "is too large to ship", f"at most {request.most_megabytes:g} MB", f"{megabytes:.2f} MB"
        )
    config = load_config(request.run, renderer.task_class)
    opened, half = (renderer.open_model(ModelRequest(one), cpu) for one in (request.run, path))
    task = renderer.task_class(config.task_section, opened.about.get("facts"), allow=config.allow)
    (samples,) = task.open_data(VALIDATION)
    check(opened, half, task, samples, request)
    print(store_run_reference(half, task, samples, cpu, workers=request.workers))
    (folder / f"{request.name}{DIGEST_ENDING}").write_text(f"{compute_sha256(path)}  {path.name}\n", encoding="utf-8")
    FOLDER.mkdir(exist_ok=True)
    for file in sorted(folder.iterdir()):
        shutil.move(file, FOLDER / file.name)
    print(f"{FOLDER / path.name}: {megabytes:.2f} MB; now its card, {FOLDER / request.name}.md")


def render_half(checkpoint: Path) -> bytes:
    """Build the bytes of the file: kernels and matrices in half precision, everything else as it is."""
    import torch
    from safetensors.torch import load, save
    from sharpstudent.checkpoint.store import render_model
    from sharpstudent.core.archive import DIGEST_KEY, seal_safetensors

    whole = render_model(checkpoint, {"precision": "half"})
    tensors = {
        name: tensor.half() if tensor.ndim > 1 and tensor.dtype == torch.float32 else tensor
        for name, tensor in load(whole).items()
    }
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]
    return seal_safetensors(save(tensors), {name: text for name, text in header.items() if name != DIGEST_KEY})


def check(opened: OpenedModel, half: OpenedModel, task: Task, samples: Samples, request: ShipRequest) -> None:
    """Compare the file with the model as an export is compared. Raises UserError where it is worse."""
    import torch
    from sharpstudent.core.types import FEATURES
    from sharpstudent.deploy.gate import Gate
    from sharpstudent.evaluation.model_files import read_selection_metric
    from sharpstudent.models.forward import evaluation_mode, run_model

    metric = read_selection_metric(opened.about, default=task.default_metric).removeprefix("val_")
    with evaluation_mode(opened.model), torch.inference_mode():
        outputs = list(run_model(opened.model, opened.example(2, torch.device("cpu"))))
    gate = Gate(
        task, samples, opened.model, metric,
        outputs=[name for name in outputs if not name.startswith(FEATURES)],
        tolerance=task.export_spec().tolerance.get(metric), fall=task.export_spec().fall.get(metric),
        rounds=1000, batch_size=16, workers=request.workers,
    )  # fmt: skip
    result = gate.check(half.model)
    print(f"{metric} {result.before:.4f} of the run, {result.after:.4f} of the file, on {result.rows} rows of ", end="")
    print(f"{result.groups} groups; largest differences: {dict(result.largest)}")
    if result.reason is not None:
        raise UserError.about(request.name, f"was not written: {result.reason}")


if __name__ == "__main__":
    with exit_codes():
        main()
