"""The page of app.py: a file goes in, and the answer of `predict.py` comes out, for a browser and for programs.

It listens on 127.0.0.1 only, and its pages fetch nothing from elsewhere: the header Content-Security-Policy forbids it.
Answers are made by the functions of `deploy.predict` and written by those of `report.predictions`. One file is judged
at a time; some wait, and further ones are refused.

    GET  /                  the page
    POST /                  the page's form; leads to the page of the answer
    GET  /answers/ID/       the page with an answer; /answers/ID/NAME is one of its files
    POST /predict           the same form for programs; answers as predictions.json
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from werkzeug.exceptions import (
    Forbidden,
    HTTPException,
    InternalServerError,
    NotFound,
    RequestEntityTooLarge,
    ServiceUnavailable,
)
from werkzeug.routing import Map, Rule
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import redirect, send_from_directory
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import get_input_stream

from sharpstudent.core.errors import RunInterrupted, UserError
from sharpstudent.core.io import (
    disk_errors_as_user_errors,
    stop_signals_raised,
    write_bytes_atomically,
    write_text_atomically,
)
from sharpstudent.core.naming import printable, printable_lines
from sharpstudent.core.types import Answer, InputSource, Table, list_class_names
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.deploy.familiar import open_familiar
from sharpstudent.deploy.heat_map import HighestPicture
from sharpstudent.deploy.inputs import AppCommand
from sharpstudent.deploy.predict import build_request, describe_stored, explain_unreadable
from sharpstudent.deploy.predictor import Predictor
from sharpstudent.deploy.uploads import UploadFolder
from sharpstudent.evaluation.opened import OpenedModel, choose_device
from sharpstudent.evaluation.renderer import load_renderer
from sharpstudent.report.chart import DARK_PAPER, DARK_SERIES, LIGHT_PAPER, LIGHT_SERIES
from sharpstudent.report.console import print_line
from sharpstudent.report.page import build_templates
from sharpstudent.report.predictions import (
    PREDICTIONS,
    Prediction,
    PredictionFolder,
    build_prediction,
    render_answer,
)
from sharpstudent.task import Task

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # by which a browser may call it: another name may be one that was made to lead here
FRAGMENT, SCRIPT = "answer.part", "app.js"
DRAIN_SECONDS, CHUNK = 20.0, 1 << 20  # a refused upload is read and thrown away, or the browser never shows why
FORM_BYTES = 100_000  # of a request beside its file
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data:; media-src blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser sends a form with the Origin null
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class TookTooLong(ServiceUnavailable):
    """An answer that was given up after its time."""


@dataclass(frozen=True)
class ServedModel:
    """A model that the page offers.

    Attributes:
        opened: The model.
        task: Its task.
        predictor: Runs it.
        stored: What is stored with it, for `Task.describe`.
        highest: Keeps the picture for the heat map; None for a model without pictures.
    """

    opened: OpenedModel
    task: Task
    predictor: Predictor
    stored: Mapping[str, Any]
    highest: HighestPicture | None


def open_served(command: AppCommand, task_class: type[Task], console: Console) -> dict[str, ServedModel]:
    """Open the models of a command, by their names.

    Args:
        command: The command line.
        task_class: The class of the task.
        console: Where remarks on models go.

    Returns:
        The models.

    Raises:
        UserError: For a model that cannot be opened, and for two of one name.
    """
    renderer, device = load_renderer(task_class), choose_device(command.device, remedy="--device auto")
    found: dict[str, ServedModel] = {}
    for request in command.models:
        opened = renderer.open_model(request, device)
        task, say = renderer.open_task(opened), _prefix(console, opened.name)
        for note in opened.notes:
            say(note)
        familiar, spec = open_familiar(opened, say), task.export_spec()
        highest = None if spec.picture is None else HighestPicture(spec.picture, spec.scores, task.heat_map_class)
        predictor = Predictor(
            opened,
            task,
            device,
            batch_size=command.batch_size,
            probe=familiar,
            watch=None if highest is None else highest.watch,
        )
        if opened.name in found:
            raise UserError.about(
                f"model {opened.name}", "is named twice", remedy="give each a name of its own, as in first=MODEL"
            )
        found[opened.name] = ServedModel(
            opened, task, predictor, describe_stored(opened, familiar, command.options), highest
        )
    return found


def _prefix(console: Console, name: str) -> Any:
    return lambda line: print_line(console, f"{name}: {line}")


class App:
    """The WSGI application."""

    def __init__(self, models: Mapping[str, ServedModel], command: AppCommand, folder: UploadFolder) -> None:
        """Keep models, limits and folder.

        Args:
            models: The models by name.
            command: The command line, with the limits.
            folder: The folder of uploads and answers.
        """
        self._models, self._command, self._folder = models, command, folder
        self._judging, self._places = threading.Lock(), threading.Semaphore(1 + command.most_waiting)
        self._urls = Map([
            Rule("/", endpoint=self._show, methods=["GET"]),
            Rule("/", endpoint=self._submit, methods=["POST"]),
            Rule("/predict", endpoint=self._predict, methods=["POST"]),
            Rule("/app.js", endpoint=self._send_script, methods=["GET"]),
            Rule("/example", endpoint=self._send_example, methods=["GET"]),
            Rule("/answers/<key>/", endpoint=self._show_answer, methods=["GET"]),
            Rule("/answers/<key>/<name>", endpoint=self._send_file, methods=["GET"]),
        ])  # fmt: skip

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer one request."""
        request = Request(environ)
        request.max_content_length = int(1e6 * self._command.most_megabytes) + FORM_BYTES
        try:
            _check_origin(request)
            endpoint, values = self._urls.bind_to_environ(environ).match()
            response = endpoint(request, **values)
        except HTTPException as error:
            response = self._refuse(request, error)
        except UserError as error:  # such as a disk that is full
            response = self._refuse(request, InternalServerError(printable_lines(str(error))))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response(environ, start_response)

    def _refuse(self, request: Request, error: HTTPException) -> Response:
        """Say why there is no answer: on the page for a browser, as JSON for a program."""
        response = error.get_response(request.environ)
        assert isinstance(response, Response)
        if error.code is None or error.code < 400:
            return response
        text = str(error.description)
        if isinstance(error, RequestEntityTooLarge):
            text = f"The file is larger than {self._command.most_megabytes:g} MB, the limit --most-megabytes."
        _drain(request)
        if request.path == "/predict":
            response.set_data(_to_json({"error": text}))
            response.content_type = "application/json"
        else:
            response.set_data(self._render(problem=text))
            response.content_type = "text/html; charset=utf-8"
        return response

    def _show(self, request: Request) -> Response:
        return Response(self._render(), content_type="text/html; charset=utf-8")

    def _submit(self, request: Request) -> Response:
        return redirect(f"/answers/{self._judge_request(request).name}/#answer", 303)  # pyright: ignore[reportReturnType]

    def _predict(self, request: Request) -> Response:
        folder = self._judge_request(request)
        headers = {"Location": f"/answers/{folder.name}/"}
        return Response((folder / PREDICTIONS).read_bytes(), content_type="application/json", headers=headers)

    def _show_answer(self, request: Request, key: str) -> Response:
        folder = self._find(key)
        try:
            part = (folder / FRAGMENT).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise NotFound(f"This answer is no longer kept: only the last ones are. {_AGAIN}") from None
        files = [path.name for path in sorted(folder.iterdir()) if path.name[0] != "." and path.name != FRAGMENT]
        files = [(quote(name), name) for name in files if not name.endswith(".jsonl")]
        made = json.loads((folder / PREDICTIONS).read_text(encoding="utf-8"))
        chosen = list(self._models).index(made["request"]["model"])
        shown = self._render(part=part, files=files, key=key, chosen=chosen)
        return Response(shown, content_type="text/html; charset=utf-8")

    def _send_file(self, request: Request, key: str, name: str) -> Response:
        response = send_from_directory(self._find(key), name, request.environ, as_attachment=True)
        assert isinstance(response, Response)
        return response

    def _find(self, key: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{16}", key):
            raise NotFound(f"There is no such answer. {_AGAIN}")
        return self._folder.answers / key

    def _send_script(self, request: Request) -> Response:
        return Response(build_templates().get_template(SCRIPT).render(), content_type="text/javascript")

    def _send_example(self, request: Request) -> Response:
        name, content = next(iter(self._models.values())).task.make_example_input()
        return Response(content, headers={"Content-Disposition": f'attachment; filename="{name}"'})

    def _render(self, **parts: Any) -> str:
        task = next(iter(self._models.values())).task
        known = {"part": None, "files": (), "key": "", "problem": None, "chosen": 0}
        return (
            build_templates()
            .get_template("app.html.j2")
            .render(
                models=list(self._models),
                suffixes=task.list_suffixes(),
                takes_pictures=task.export_spec().picture is not None,
                most_megabytes=self._command.most_megabytes,
                colours={"light": (LIGHT_PAPER, LIGHT_SERIES), "dark": (DARK_PAPER, DARK_SERIES)},
                **known | parts,
            )
        )

    def _judge_request(self, request: Request) -> Path:
        """Judge the file of a request; return the folder of its answer."""
        if not self._places.acquire(blocking=False):
            raise ServiceUnavailable(
                f"{1 + self._command.most_waiting} files are waiting already: try again in a moment.", retry_after=10
            )
        try:
            with self._folder.hold_upload() as folder:
                with disk_errors_as_user_errors(folder):  # a form of some size is kept in a temporary file
                    model, source = self._receive(request, folder)
                with self._judging:
                    return self._judge(model, source)
        finally:
            self._places.release()

    def _receive(self, request: Request, folder: Path) -> tuple[ServedModel, InputSource]:
        """Take the model and the file out of a form; the example where it asks for that."""
        model, file = self._find_model(request.form.get("model", "0")), request.files.get("file")
        if "example" in request.form:
            name, content = model.task.make_example_input()
            path = folder / name
            write_bytes_atomically(path, content)
        elif file is None or not file.filename:
            raise _BadFile("No file was sent: the form has the fields file and model.")
        else:
            name = printable(file.filename)[:200]
            # The name comes from outside: only its ending reaches the disk.
            ending = re.search(r"\.[A-Za-z0-9]{1,8}$", name)
            path = folder / f"upload{ending.group().lower() if ending else ''}"
            file.save(path)
            if path.stat().st_size > 1e6 * self._command.most_megabytes:
                raise RequestEntityTooLarge
        return model, InputSource(name, path, options=self._command.options)

    def _find_model(self, named: str) -> ServedModel:
        """Find a model by its name, or by its place, which is what the page's form sends."""
        if named in self._models:
            return self._models[named]
        if named.isdecimal() and int(named) < len(self._models):
            return list(self._models.values())[int(named)]
        raise NotFound(f"There is no model {printable(named)!r}: there are {', '.join(self._models)}.")

    def _judge(self, model: ServedModel, source: InputSource) -> Path:
        """Answer about one file, and write the answer as `predict.py --out` does."""
        begun = time.monotonic()
        request = build_request(model.opened, model.task, source.options, model.stored)
        folder = self._folder.answers / secrets.token_hex(8)
        written, answer = PredictionFolder(folder, request, lambda line: None), None
        try:
            answer = self._answer(model, source, begun)
            prediction = build_prediction(source, answer, seconds=time.monotonic() - begun)
        except UnreadableSample as error:
            prediction = Prediction(input=source.name, status="unreadable", sentence=explain_unreadable(source, error))
        prediction = written.add(source, prediction, answer)
        if answer is not None:
            model.task.finish_input(source, answer, folder)
        written.close([prediction], notes=model.opened.notes, is_complete=True)
        shown = answer or Answer(outcome="", sentence=prediction.sentence)
        write_text_atomically(folder / FRAGMENT, render_answer(prediction, shown))
        self._folder.keep(folder)
        return folder

    def _answer(self, model: ServedModel, source: InputSource, begun: float) -> Answer:
        if model.highest is not None:
            model.highest.reset()
        with contextlib.closing(model.predictor.read([source], workers=1)) as read:
            _, tables = next(read)
            answers = deque(model.task.describe(self._limit(tables, begun), model.stored), maxlen=1)
        (last,) = answers  # the others are as far as the file had been read
        return _add_heat_map(model, last)

    def _limit(self, tables: Iterator[Table], begun: float) -> Iterator[Table]:
        for table in tables:
            if time.monotonic() - begun > self._command.most_seconds:
                raise TookTooLong(
                    f"The answer took longer than {self._command.most_seconds:g} s, the limit --most-seconds: "
                    "a longer file is for predict.py."
                )
            yield table


_AGAIN = "Choose the file again."


class _BadFile(HTTPException):
    code = 400


def _add_heat_map(model: ServedModel, answer: Answer) -> Answer:
    """Add the heat map of the highest picture, where the model has one and its package is installed."""
    if model.highest is None:
        return answer
    try:
        drawn = model.highest.draw(model.opened.model)
    except UserError as error:  # the package is not there: the answer says so instead
        return replace(answer, reasons=(*answer.reasons, f"No heat map: {error.problems[0].what}."))
    if drawn is None:
        return answer
    plain, heat, target = drawn
    name = (*list_class_names(model.task), *map(str, range(target + 1)))[target]
    if heat is None:
        pictures = [(plain, f"no part of it is evidence for {name} (Grad-CAM)")]
    else:
        pictures = [(plain, "as the model sees it"), (heat, f"bright: evidence for {name} (Grad-CAM)")]
    return replace(answer, pictures={**answer.pictures, "Heat map of the highest score": pictures})


def _check_origin(request: Request) -> None:
    """Refuse what another page, or a name that was made to lead here, asks for."""
    name = request.host.rpartition(":")[0] or request.host
    origin = request.headers.get("Origin")
    if name not in NAMES or (origin is not None and origin != f"http://{request.host}"):
        raise Forbidden(f"This page answers on {HOST} and to its own form only.")


def _drain(request: Request) -> None:
    """Read and throw away what is left of a request, for a while."""
    # The stream that the form was read from knows how much is left; there is none where nothing has been read.
    stream = vars(request).get("stream") or get_input_stream(request.environ)
    end = time.monotonic() + DRAIN_SECONDS
    try:
        while stream.read(CHUNK) and time.monotonic() < end:
            pass
    except (OSError, HTTPException):
        return  # the other side has gone


def _to_json(value: Any) -> str:
    return json.dumps(value) + "\n"


class _QuietHandler(WSGIRequestHandler):
    """Prints no line for a request, and gives up a connection that is silent for too long."""

    timeout = 30

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def run_app(task_class: type[Task], command: AppCommand) -> None:
    """Serve the page until Ctrl-C.

    Args:
        task_class: The class of the task.
        command: The command line.

    Raises:
        UserError: For a model that cannot be opened, and a port that is taken.
    """
    console = Console(highlight=False)
    models = open_served(command, task_class, console)
    folder = UploadFolder()
    try:
        with stop_signals_raised("stopped"):
            if folder.removed:
                print_line(console, f"removed the uploads that {folder.removed} ended process(es) had left")
            server = _bind(App(models, command, folder), command.port)
            print_line(
                console, f"http://{HOST}:{server.socket.getsockname()[1]}/ serves {', '.join(models)}; Ctrl-C ends it"
            )
            server.serve_forever()
    except RunInterrupted:
        print_line(console, "stopped; uploads and answers are deleted")
    finally:
        folder.close()


def _bind(app: App, port: int) -> Any:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        raise UserError.about(f"--port {port}", f"cannot be used ({error.strerror})", remedy="--port 0") from None
    listener.listen(64)
    with contextlib.closing(listener):
        return make_server(HOST, port, app, threaded=True, request_handler=_QuietHandler, fd=listener.fileno())
