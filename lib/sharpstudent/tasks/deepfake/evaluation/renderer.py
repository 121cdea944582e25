"""The renderer of the deepfake task: what training and evaluation draw, measure and report for detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.evaluation.command_line import ModelRequest
from sharpstudent.evaluation.renderer import FinishedRun, Measurements, Renderer, Session, StageEnd
from sharpstudent.tasks.deepfake.evaluation.command_line import FaceRequest, parse_request

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sharpstudent.core.types import Batch
    from sharpstudent.evaluation.evaluate import Evaluation, Heading
    from sharpstudent.evaluation.opened import OpenedModel
    from sharpstudent.task import Task
    from sharpstudent.tasks.deepfake.evaluation.evaluation_set import FaceSet, LabelledFaceSet
    from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
    from sharpstudent.tasks.deepfake.evaluation.mistakes import HeatMaps
    from sharpstudent.tasks.deepfake.evaluation.run_validation import ValidationSet
    from sharpstudent.tasks.deepfake.report.results import CalibrationResult, Results

CARD = "model_card.md"
FAKE = 1  # the number of the class


class FaceRenderer(Renderer):
    """Opens, measures, draws and reports for detectors of deepfakes.

    Heavy imports are made where they are needed, because the command line is read through this class.
    """

    _validation: Sequence[LabelledFaceSet] = ()
    _calibrations: Sequence[CalibrationResult | None] = ()
    _frames: Sequence[ScoredFrames] = ()

    def draw_batch(self, path: Path, batch: Batch) -> None:
        """Draw what teacher and student see, and where each fake was blended.

        Args:
            path: The path of the picture.
            batch: The batch.
        """
        from sharpstudent.tasks.deepfake.report.pictures import draw_first_batch

        draw_first_batch(path, batch)

    def describe_next(self, end: StageEnd) -> list[str]:
        """Say what to do next, with the two-stage guide's bands: the AUCs of single pictures that it expects."""
        from sharpstudent.tasks.deepfake.report.guide import describe_next_after_stage1, describe_next_after_stage2

        selected = None if end.metric == "val_auc" else f"{end.metric} {end.value:.4f}"
        bands = getattr(self.task, "has_published_bands", False)
        if end.stage == 1:
            return describe_next_after_stage1(
                val_auc=end.best.get("val_auc"),
                checkpoint=end.checkpoint,
                following=end.following,
                bands=bands,
                selected=selected,
            )
        return describe_next_after_stage2(
            val_auc=end.best.get("val_auc"),
            stage1_auc=end.start.get("val_auc"),
            checkpoint=end.checkpoint,
            settings=end.settings,
            bands=bands,
            selected=selected,
        )

    def parse(self, argv: Sequence[str], *, script: str) -> FaceRequest:
        """Read the options for detectors.

        Args:
            argv: The command line without the program's name.
            script: The name of the script.

        Returns:
            The request.
        """
        return parse_request(argv, script=script)

    def default_request(self, models: tuple[ModelRequest, ...], **more: Any) -> FaceRequest:
        """Build the request of the report at the end of a run."""
        return FaceRequest(models, **more)

    def open_model(self, request: ModelRequest, device: torch.device) -> OpenedModel:
        """Open any classifier of pictures; the request's options describe a file that does not describe itself.

        Args:
            request: The requested model.
            device: The device that the model goes to.

        Returns:
            The model.
        """
        import cv2

        from sharpstudent.evaluation.load_model import ModelFile, open_model
        from sharpstudent.tasks.deepfake.task import DeepfakeTask

        cv2.setNumThreads(1)  # a loader process that is forked beside OpenCV's threads hangs
        options = {name: value for name, value in request.options.items() if name != "config"}  # the file says the rest
        views = options.pop("views", None)
        classes, unstated = DeepfakeTask.classes, None
        if "fake_class" in options:  # predict.py has no labels that would show that the outputs are swapped
            fake = options.pop("fake_class")
            options["classes"] = None if fake is None else classes if fake == FAKE else classes[::-1]
            unstated = f"say which of its outputs means {classes[FAKE]}: --fake-class 1, or --fake-class 0"
        file = ModelFile(path=request.path, name=request.name, **options)
        opened = open_model(file, classes=classes, device=device, unstated=unstated)
        return opened if views is None else _look_at_views(opened, views)

    def open_task(self, opened: OpenedModel) -> Task:
        """Build the task with the size of the model's input."""
        from sharpstudent.tasks.deepfake.evaluation.evaluation_set import find_input

        return self.task_class(None, {"image_size": find_input(opened.input_key).image_size})

    def check(self, session: Session) -> None:
        """Raise UserError for options that the opened models cannot meet."""
        from sharpstudent.tasks.deepfake.evaluation.datasets import check_request

        check_request(session)

    def open_sets(self, session: Session) -> Sequence[FaceSet]:
        """Open the sets of --data, and keep those of --validation."""
        from sharpstudent.evaluation.tables import find_config
        from sharpstudent.tasks.deepfake.evaluation.datasets import open_data

        sets, self._validation = open_data(session, find_config(session.request, self.task_class))
        return sets

    def open_run_data(self, run: FinishedRun) -> ValidationSet:
        """Take the validation data of a run as the run opened it."""
        from sharpstudent.tasks.deepfake.evaluation.run_validation import ValidationSet

        task: Any = self.task
        return ValidationSet(run.config.name, task.image_size, lambda _: (task, run.data))

    def calibrate(self, session: Session) -> Sequence[Any]:
        """Read what the checkpoints store, or choose calibrations on the sets of --validation."""
        from sharpstudent.evaluation.evaluate import evaluate_models
        from sharpstudent.tasks.deepfake.evaluation.assemble import collect_frames
        from sharpstudent.tasks.deepfake.evaluation.calibration import choose_calibrations, read_calibration
        from sharpstudent.tasks.deepfake.evaluation.evaluation_set import find_input

        request = session.request
        assert isinstance(request, FaceRequest)
        if not self._validation:
            self._calibrations = [read_calibration(model) for model in session.models]
        else:
            frames = collect_frames(evaluate_models(session, self._validation))
            named = ", ".join(one.name for one in self._validation)
            views = [find_input(model.input_key).views for model in session.models]
            self._calibrations = choose_calibrations(
                frames, named=named, fprs=request.fprs, views=views, rules=request.rules
            )
        return self._calibrations

    def find_mistakes(self, session: Session, evaluation: Evaluation) -> tuple[Sequence[Any], Sequence[Any]]:
        """Find the faces that each model is most wrong about.

        Args:
            session: The evaluation in progress.
            evaluation: The tables of the models.

        Returns:
            The mistakes of all models, and their pictures.
        """
        from sharpstudent.tasks.deepfake.evaluation.assemble import list_sets
        from sharpstudent.tasks.deepfake.evaluation.mistakes import Judged, find_mistakes
        from sharpstudent.tasks.deepfake.report.pictures import MOST_CARDS

        request = session.request
        assert isinstance(request, FaceRequest)
        judged = [
            Judged(
                opened,
                result.tables,
                temperature=None if calibration is None else calibration.temperature,
                heat_maps=_open_heat_maps(opened, session) if request.heat_maps else None,
            )
            for opened, result, calibration in zip(session.models, evaluation.models, self._calibrations, strict=True)
        ]
        with session.progress("pictures of mistakes", MOST_CARDS, "picture") as progress:
            return find_mistakes(judged, list_sets(evaluation), evaluation.unreadable, tick=progress.add)

    def measure_robustness(self, session: Session) -> Mapping[str, Any]:
        """Measure the curves of corrupted pictures, where the request asks for them."""
        from sharpstudent.tasks.deepfake.evaluation.evaluation_set import LabelledFaceSet
        from sharpstudent.tasks.deepfake.evaluation.robustness import measure_robustness

        request, faces = session.request, [one for one in session.sets if isinstance(one, LabelledFaceSet)]
        assert isinstance(request, FaceRequest)
        if request.robustness is None:
            return {}
        if not faces:
            session.say("robustness: not measured; it needs --data with faces of both classes")
            return {}
        found: dict[str, Any] = {}
        for size in sorted({model.input_key for model in session.models if isinstance(model.input_key, int)}):
            found |= measure_robustness(
                [(model.name, model.model) for model in session.models if model.input_key == size],
                faces,
                image_size=size,
                num_workers=request.workers,
                device=session.device,
                names=request.robustness or None,
                most_faces=request.robustness_faces,
                say=session.say,
                progress=session.progress,
            )
        return found

    def build_results(
        self, session: Session, evaluation: Evaluation, measured: Measurements, heading: Heading
    ) -> Results:
        """Build the results.

        Args:
            session: The evaluation in progress.
            evaluation: The tables of the models.
            measured: The calibrations, costs, mistakes and robustness.
            heading: The title, time, command and environment.

        Returns:
            The results with the verdict.
        """
        from sharpstudent.tasks.deepfake.evaluation.assemble import assemble, collect_frames

        self._frames = collect_frames(evaluation)
        return assemble(session, evaluation, self._frames, measured, heading)

    def write(
        self, folder: Path, results: Any, evaluation: Evaluation, measured: Measurements, *, run: FinishedRun | None
    ) -> list[Path]:
        """Write the files of an evaluation, or of the report at the end of a run.

        Args:
            folder: The folder that the files go to.
            results: The results.
            evaluation: The tables of the models.
            measured: The calibrations, costs, mistakes and robustness.
            run: The run whose report it is; None for an evaluation of its own.

        Returns:
            The files of the report, the page first.
        """
        from sharpstudent.core.io import write_text_atomically
        from sharpstudent.tasks.deepfake.evaluation import assemble as output
        from sharpstudent.tasks.deepfake.report.card import render_model_card

        if run is None:
            models = [
                (one.name, frames, None if model.calibration is None else model.calibration.temperature)
                for one, model, frames in zip(evaluation.models, results.models, self._frames, strict=True)
            ]
            return output.write_evaluation(folder, results, measured.pictures, models, self.console)
        write_text_atomically(folder / CARD, render_model_card(results, results.models[0]))
        return output.write_report(folder, results, measured.pictures, self.console)

    def store(self, session: Session, measured: Measurements) -> None:
        """Write the chosen calibrations into the checkpoints, where the request asks for it.

        Args:
            session: The evaluation in progress.
            measured: The measurements, with the calibrations.
        """
        from sharpstudent.tasks.deepfake.evaluation.calibration import store_calibrations

        request = session.request
        assert isinstance(request, FaceRequest)
        if request.store:
            chosen = [one for one in measured.calibrations if one is not None]
            store_calibrations(session.models, chosen, session.say)

    def say_results(self, session: Session, results: Any, folder: Path) -> None:
        """Print the tables, the verdict, and where the files are.

        Args:
            session: The evaluation in progress.
            results: The results.
            folder: The folder of the files.
        """
        from sharpstudent.tasks.deepfake.evaluation.assemble import say_results

        say_results(session, results, folder)


def _look_at_views(opened: OpenedModel, views: str) -> OpenedModel:
    """Let a model, whose scores are then the mean over views of each face, be given these views."""
    from sharpstudent.modalities.faces.views import VIEWS, list_views
    from sharpstudent.tasks.deepfake.evaluation.evaluation_set import FaceInput, find_input

    side, count = find_input(opened.input_key).image_size, len(list_views(views))

    def make_example(samples: int, device: torch.device) -> dict[str, Tensor]:
        pictures = opened.example(samples * count, device)["image"]
        return {"image": pictures.unflatten(0, (samples, count))}

    note = f"its scores are the mean log-odds over {count} views of each face ({views}): {VIEWS[views]}"
    return replace(
        opened,
        input_key=FaceInput(side, views),
        input_words=f" in {count} views{opened.input_words}",
        notes=(*opened.notes, note),
        example=make_example,
        reopen={**opened.reopen, "views": count},
    )


def _open_heat_maps(opened: OpenedModel, session: Session) -> HeatMaps | None:
    from sharpstudent.deploy.heat_map import compute_heat_maps, explain_no_heat_maps
    from sharpstudent.tasks.deepfake.evaluation.evaluation_set import find_input

    side = find_input(opened.input_key).image_size
    reason = explain_no_heat_maps(opened.model, side=side, target=FAKE)
    if reason is not None:
        session.say(f"{opened.name}: no heat maps: {reason}")
        return None
    return partial(compute_heat_maps, target=FAKE)
