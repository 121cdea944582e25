"""The Python API: what `import sharpstudent` offers. Importing this loads no torch.

>>> model = sharpstudent.load("output/run_...")
>>> model.predict("clip.mp4").probability
>>> run = sharpstudent.distill("configs/demo.json", set={"seed": 7}, callbacks=[my_callback])
"""

from __future__ import annotations

import base64
import html
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import read_text
from sharpstudent.core.naming import clean_name, escape_markdown, printable

if TYPE_CHECKING:
    from sharpstudent.report.predictions import Prediction
    from sharpstudent.report.results import EvaluationResults
    from sharpstudent.train.callbacks import Callback


@dataclass(frozen=True)
class FinishedStage:
    """A stage that is over.

    Attributes:
        folder: The run folder.
        best_model: The checkpoint of the best epoch.
        best_epoch: The best epoch.
        best_value: Its value of the selection metric.
        metrics: All metrics of the best model on the validation samples.
    """

    folder: Path
    best_model: Path
    best_epoch: int
    best_value: float
    metrics: Mapping[str, float]

    def load(self, **options: Any) -> Model:
        """Load the best model; options are those of `load`."""
        return load(self.folder, **options)

    def _repr_html_(self) -> str:
        """Show the stage in a notebook: its best epoch, the metrics there, and the training curves."""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{value:.4f}</td></tr>" for name, value in self.metrics.items()
        )
        curves, picture = self.folder / "logs" / "curves.png", ""
        if curves.is_file():
            data = base64.b64encode(curves.read_bytes()).decode("ascii")
            picture = f'<img alt="training curves" src="data:image/png;base64,{data}">'
        title = f"{printable(self.folder.name)}: epoch {self.best_epoch} is the best, {self.best_value:.4f}"
        return f"<p><b>{html.escape(title)}</b></p><table>{rows}</table>{picture}"


class Model:
    """A trained model of any task, ready to answer about files."""

    def __init__(self, opened: Any, task: Any, device: Any, options: Mapping[str, Any], *, batch_size: int) -> None:
        """Keep an opened model; `load` makes one.

        Args:
            opened: The model, as `Renderer.open_model` gives it.
            task: Its task.
            device: Its device.
            options: The values of the task's own options.
            batch_size: How many samples pass the model at once.
        """
        from sharpstudent.deploy.familiar import open_familiar

        notes: list[str] = []
        self._opened, self._task, self._device, self._options = opened, task, device, dict(options)
        self._batch_size = batch_size
        self._familiar = open_familiar(opened, notes.append)
        self.notes: tuple[str, ...] = (*opened.notes, *notes)

    @property
    def name(self) -> str:
        """The name of the model in reports."""
        return str(self._opened.name)

    @property
    def about(self) -> Mapping[str, Any]:
        """What the file says of itself."""
        return dict(self._opened.about)

    def predict(self, source: str | Path) -> Prediction:
        """Answer about one file.

        Args:
            source: The file.

        Returns:
            The answer.

        Raises:
            UserError: For several inputs, or one that cannot be read.
        """
        answers = list(self.predict_all([source]))
        if len(answers) != 1:
            raise UserError.about(
                str(source), f"holds {len(answers)} inputs", expected="one", remedy="use predict_all for a folder"
            )
        if answers[0].status == "unreadable":
            raise UserError.about(str(source), answers[0].sentence)
        return answers[0]

    def predict_all(self, sources: Sequence[str | Path], *, workers: int = 2) -> Iterator[Prediction]:
        """Answer about files, folders and patterns, in order, as they are read.

        Args:
            sources: The inputs, as for predict.py.
            workers: How many are read at the same time.

        Yields:
            The answers; one that cannot be read has the status `unreadable`, and its sentence says why.

        Raises:
            UserError: Where the words stand for no input.
        """
        from sharpstudent.data.dataset import UnreadableSample
        from sharpstudent.deploy.inputs import find_inputs
        from sharpstudent.deploy.predict import describe_stored, explain_unreadable
        from sharpstudent.deploy.predictor import Predictor
        from sharpstudent.report.predictions import Prediction, build_prediction

        found = find_inputs(list(map(str, sources)), self._task.list_suffixes(), self._options)
        stored = describe_stored(self._opened, self._familiar, self._options)
        predictor = Predictor(self._opened, self._task, self._device, batch_size=self._batch_size, probe=self._familiar)
        for source, tables in predictor.read(found.sources, workers=workers):
            begun = time.monotonic()
            try:
                *_, answer = self._task.describe(tables, stored)
            except UnreadableSample as error:
                reason = explain_unreadable(source, error)
                yield Prediction(input=source.name, status="unreadable", sentence=reason)
            else:
                yield build_prediction(source, answer, seconds=time.monotonic() - begun)


def load(
    model: str | Path, *, device: str = "auto", batch_size: int = 16, task: str | None = None, **options: Any
) -> Model:
    """Load a trained model.

    Args:
        model: A run folder, a checkpoint, an exported file, the name of a model that comes with the package, or the
            name of one on the Hugging Face hub, as hf:OWNER/NAME.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: How many samples pass the model at once.
        task: The task of a file that does not name it.
        options: Options of the task for reading inputs, as in `predict.py --help`, with underscores.

    Returns:
        The model.

    Raises:
        UserError: For a model that cannot be opened.
    """
    from sharpstudent.deploy.inputs import parse_prediction
    from sharpstudent.evaluation.opened import choose_device
    from sharpstudent.evaluation.renderer import load_renderer

    word = str(model)
    if word.startswith(HUB):
        word = str(download(word.removeprefix(HUB)))
    words = [word, "-", *(() if task is None else ("--task", task))]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [] if value is False or value is None else [option, str(value)]
    task_class, command = parse_prediction(words)
    renderer, on = load_renderer(task_class), choose_device(device, remedy='load(..., device="auto")')
    opened = renderer.open_model(command.model, on)
    return Model(opened, renderer.open_task(opened), on, command.options, batch_size=batch_size)


def train_student_only(
    config: str | Path,
    *,
    name: str = "run",
    set: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
    task: str | None = None,
) -> FinishedStage:
    """Run stage 1: hard labels. The arguments, result and errors are those of `distill`."""
    return _run_stage(1, config, name, set or {}, callbacks, resume, task)


def distill(
    config: str | Path,
    *,
    name: str = "run",
    set: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
    task: str | None = None,
) -> FinishedStage:
    """Run stage 2: distil the teacher into the student of stage 1.

    Args:
        config: The config file.
        name: The name of the run.
        set: New values of keys, such as {"seed": 7, "stage2.epoch": 3}.
        callbacks: What is told of the training; see `Callback`.
        resume: A run to go on with, or "auto".
        task: The task, in place of the config's key `task`.

    Returns:
        The finished stage.

    Raises:
        UserError: For what the caller can correct.
        RunInterrupted: After SIGINT or SIGTERM; the state is saved, and `resume` goes on.
        TrainingStopped: Where going on is useless.
    """
    return _run_stage(2, config, name, set or {}, callbacks, resume, task)


def _run_stage(
    stage: Any,
    config: str | Path,
    name: str,
    changes: Mapping[str, Any],
    callbacks: Sequence[Callback],
    resume: str | Path | None,
    task: str | None,
) -> FinishedStage:
    from sharpstudent.config.cli import parse_command_line
    from sharpstudent.core.archive import BEST
    from sharpstudent.registry import find_task

    words = [str(config), "-n", name]
    words += [word for key, value in changes.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    words += [] if resume is None else ["--resume", str(resume)]
    words += [] if task is None else ["--task", task]
    command = parse_command_line(words, stage=stage, find_task=find_task)
    from sharpstudent.train.stage import run_stage

    ended = run_stage(command, callbacks)
    assert ended is not None, "these words neither list nor replay anything"
    folder, result = ended
    return FinishedStage(folder, folder / BEST, result.best_epoch, result.best_value, result.best_metrics)


HUB = "hf:"  # before the name of a model on the Hugging Face hub


def download(name: str) -> Path:
    """Download a model from the Hugging Face hub.

    Args:
        name: OWNER/NAME on the hub.

    Returns:
        The path of its file of weights.

    Raises:
        UserError: Where it cannot be had.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, HUB_FILE))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError.about(
            f"{HUB}{name}",
            "cannot be had from the hub",
            got=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            remedy="check the name and the network, or give a file",
        ) from None


HUB_FILE = "model.safetensors"


def push_to_hub(run: str | Path, name: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload the best model of a run, with its model card, to the Hugging Face hub.

    Args:
        run: The run folder. Its model_card.md goes along; where its task writes none, a short card is made of the
            results of its report.
        name: OWNER/NAME on the hub; made where it does not exist.
        private: Whether a new one is private.
        token: The access token; None for the one that is stored on this machine.

    Returns:
        The address of the model.

    Raises:
        UserError: For a run without a finished model or without a report.
    """
    from huggingface_hub import HfApi, ModelCard

    folder = Path(run)
    weights, card, results = (folder / part for part in ("weights/best_model.safetensors", CARD, "results.json"))
    for path in (weights, card if card.is_file() else results):
        if not path.is_file():
            raise UserError.about(str(path), "does not exist", remedy="let the run end with its report (report=true)")
    text = read_text(card) if card.is_file() else _render_card(_read_results(results), name)
    ModelCard(text)  # its metadata are checked before anything is sent
    api = HfApi(token=token)
    api.create_repo(name, private=private, exist_ok=True)
    api.upload_file(path_or_fileobj=weights, path_in_repo=HUB_FILE, repo_id=name)
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=name)
    return f"{api.endpoint}/{name}"


CARD = "model_card.md"


def _read_results(path: Path) -> EvaluationResults:
    """Read results.json of a task without results of its own form. Raises UserError for what is none."""
    from pydantic import ValidationError

    from sharpstudent.report.results import EvaluationResults

    try:
        return EvaluationResults.model_validate_json(read_text(path))
    except (ValidationError, ValueError) as error:
        raise UserError.about(
            str(path), "is not results of a run's report", got=str(error).splitlines()[0], remedy="make it again"
        ) from None


def _render_card(results: EvaluationResults, name: str) -> str:
    """Write a short model card from results.json of a run's report, of any task.

    Args:
        results: The results; their first model is the run's.
        name: OWNER/NAME on the hub.
    """
    from huggingface_hub import EvalResult, ModelCardData

    model, sets = results.models[0], ", ".join(clean_name(data.name) for data in results.data)
    found = [
        EvalResult(results.task, sets, sets, metric, value.value, metric_name=results.metrics[metric].title)
        for metric, value in model.metrics.items()
        if metric in results.metrics and value.value is not None
    ]
    data = ModelCardData(
        license="other",
        license_name="see-the-card",
        library_name="sharpstudent",
        tags=["pytorch", "knowledge-distillation", results.task],
        model_name=clean_name(model.name),
        eval_results=found,
    )
    rows = [f"| {escape_markdown(str(one.metric_name))} | {one.metric_value:.4f} |" for one in found]
    sentences = [f"- {escape_markdown(text)}" for text in (*results.verdict, *results.limits)]
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n# {name}\n",
        f"A model of the task `{results.task}`, trained with SharpStudent.\n",
        f'```python\nimport sharpstudent\n\nmodel = sharpstudent.load("{HUB}{name}")\n```\n',
        "\n".join([f"On {escape_markdown(sets)}:\n", "| Metric | Value |", "|---|---|", *rows, "", *sentences]),
        "The licence of the weights depends on the data and on the teacher: whoever uploads them has to state it.",
    ]
    return "\n".join(parts) + "\n"
