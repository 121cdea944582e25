"""Where an exported file goes, and which requests are refused before a model is opened."""

from __future__ import annotations

from pathlib import Path

from sharpstudent.core.archive import BEST
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import check_writable
from sharpstudent.deploy.command_line import FORMATS, NOT_COMPARED, ExportRequest
from sharpstudent.evaluation.tables import find_run_folder

FOLDER = "exports"  # of a run folder
ENDINGS = {"onnx": ".onnx", "onnx-int8": "-int8.onnx", "openvino": ".xml", "executorch": ".pte", "coreml": ".mlpackage"}
PICTURES = "-pictures"  # in the name of a file that takes bytes of pictures
UNAVAILABLE = {
    "litert": "its converter litert-torch 0.10 needs jax, transformers and some twenty further packages beside the "
    "pinned torch",
}


def check_format(request: ExportRequest) -> None:
    """Raise UserError for a format that cannot be written here, and for options that a format does not have."""
    if request.to in UNAVAILABLE:
        raise UserError.about(
            f"--to {request.to}",
            f"is not possible: {UNAVAILABLE[request.to]}",
            expected=", ".join(name for name in FORMATS if name not in UNAVAILABLE),
            remedy="--to executorch for a phone, or --to onnx, which onnxruntime runs there, too",
        )
    if request.to == "coreml" and NOT_COMPARED not in request.allow:
        raise UserError.about(
            "--to coreml",
            "gives a file that runs on Apple's systems alone, so that it cannot be compared with the model",
            expected="a file that is as good as the model, within what the task tolerates",
            remedy=f"--allow {NOT_COMPARED} writes it all the same, marked",
        )
    for option, is_given in (("--auto", request.auto), ("--qat-steps", request.qat_steps > 0)):
        if is_given and request.to != "onnx-int8":
            raise UserError.about(
                option,
                "is about layers in int8",
                got=f"--to {request.to}",
                remedy=f"--to onnx-int8, or leave {option} out",
            )


def find_target(request: ExportRequest) -> Path:
    """Find the path of the file: in `exports` of the run folder, beside a checkpoint elsewhere, or what the user says.

    Raises:
        UserError: For an ending that is not the format's.
    """
    ending = ENDINGS[request.to]
    suffix = Path(f"model{ending}").suffix
    if request.out is not None:
        if request.out.suffix != suffix:
            raise UserError.about(
                f"--out {request.out}",
                f"does not end as a file of {request.to} does",
                expected=suffix,
                remedy="rename it",
            )
        return request.out
    model = request.model.path
    run = find_run_folder(model)
    name = (model if run is None else run).resolve()
    stem = request.model.name or (name.stem if run is None else name.name)
    if run is not None and model.is_file() and (model.parent.name, model.stem) != (BEST.parent.name, BEST.stem):
        stem = f"{stem}-{model.stem}"
    folder = model.parent if run is None else run / FOLDER
    return folder / f"{stem}{PICTURES if request.preprocessing else ''}{ending}"


def check_target(target: Path, request: ExportRequest) -> None:
    """Raise UserError where a file is there already, or the folder cannot be written to."""
    taken = [file for file in (target, target.with_suffix(".bin")) if file.exists()]
    taken = taken if target.suffix == ".xml" else taken[: int(target.exists())]
    if taken and not request.overwrite:
        raise UserError.about(
            str(taken[0]), "is there already", remedy="--overwrite to replace it, or --out with another name"
        )
    check_writable(target.parent, str(target), remedy="choose another file: --out FILE")
