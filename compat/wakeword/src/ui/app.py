"""The page of the wake-word guide: `python -m src.ui.app`, on 127.0.0.1.

Panel 1 names the data, panel 2 holds the config, panel 3 starts a training, shows how it goes, and stops it. The
training is `python -m src.run` with the YAML file that the page writes. The page works without JavaScript and fetches
nothing; while a training runs it reloads itself. Werkzeug and Jinja serve it, as they do app.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.io import make_folder
from sharpstudent.core.naming import printable_lines
from werkzeug.serving import make_server
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from src.config.defaults import ARCHITECTURES, SCHEDULERS, TEACHERS, WakewordConfig

HOST, PORT = "127.0.0.1", 7860
SHOWN_LINES, LOG_BYTES = 40, 20_000
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
CHOICES = {
    "model.architecture": ARCHITECTURES,
    "distillation.teacher_architecture": TEACHERS,
    "optimizer.optimizer": ("adamw", "sgd"),
    "optimizer.scheduler": SCHEDULERS,
}
TITLES = {
    "distillation.enabled": "Enable Distillation",
    "distillation.teacher_architecture": "Teacher Arch",
    "distillation.temperature": "Distillation Temp",
    "distillation.alpha": "Distillation Alpha",
    "distillation.teacher_model_path": "Teacher checkpoint (empty: its head is fitted first)",
}
LOSS_TAB = "Optimization & Loss"
TABS: Mapping[str, tuple[tuple[str, str], ...]] = {  # tab -> its groups: title and section of the config
    "Basic": (("Model", "model"), ("Training", "training")),
    "Data & Augmentation": (("Data", "data"), ("Augmentation", "augmentation")),
    LOSS_TAB: (("Optimizer", "optimizer"), ("Advanced Optimization", "distillation"), ("Deployment", "qat")),
}


@dataclass(frozen=True)
class Control:
    """A control of panel 2: the name and value of a key, and what it may be."""

    name: str
    title: str
    value: Any
    kind: str
    choices: tuple[str, ...] = ()


class TrainingPage:
    """The page, and the one training that it runs at a time."""

    def __init__(self, folder: Path) -> None:
        """Start with the default config.

        Args:
            folder: Where the page writes config, log and checkpoints.
        """
        self.folder, self.config, self.data_folder = folder, WakewordConfig(), "data/splits"
        self.error = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._was_stopped = False
        templates = Environment(loader=PackageLoader("src.ui"), autoescape=True, undefined=StrictUndefined)
        self._template = templates.get_template("page.html.j2")

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Answer a request (WSGI)."""
        request = Request(environ)
        return self._answer(request)(environ, start_response)

    def _answer(self, request: Request) -> Response:
        address = request.host.partition(":")[0]
        if address not in (HOST, "localhost"):
            return Response("this page is for this machine alone", 403)
        if request.method == "POST" and not self._is_own(request):
            return Response("a form of another page", 403)
        if request.method == "POST" and request.path == "/start":
            self._start(request.form)
            return redirect("/#training", 303)
        if request.method == "POST" and request.path == "/stop":
            self.stop()
            return redirect("/#training", 303)
        if request.path != "/":
            return Response("there is nothing here", 404)
        return Response(self.render(), mimetype="text/html", headers=HEADERS)

    def _is_own(self, request: Request) -> bool:
        """Whether a form was sent by this page: a browser says where it comes from."""
        origin = request.headers.get("Origin")
        return origin is None or origin == f"http://{request.host}"

    @property
    def is_running(self) -> bool:
        """Whether a training runs."""
        return self._process is not None and self._process.poll() is None

    def _start(self, form: Mapping[str, str]) -> None:
        """Read the form, write the config and start the training; what is wrong is shown on the page."""
        self.error = ""
        if self.is_running:
            return
        try:
            self.data_folder, self.config = form.get("data_folder", ""), read_form(form)
            self.config.check()
        except UserError as error:
            self.error = printable_lines(error.as_text())
            return
        make_folder(self.folder)
        self.config.save(self.folder / "config.yaml")
        words = [sys.executable, "-u", "-m", "src.run", str(self.folder / "config.yaml"), "--data", self.data_folder,
                 "--checkpoints", str(self.folder / "checkpoints")]  # fmt: skip
        path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
        self._was_stopped = False
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                words, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": path}
            )

    def stop(self) -> None:
        """Ask the training to stop after its step; its state is kept."""
        if self._process is not None and self._process.poll() is None:
            self._was_stopped = True
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait until the training has ended."""
        if self._process is not None:
            self._process.wait()

    @property
    def _log(self) -> Path:
        return self.folder / "training.log"

    def _read_log(self) -> str:
        if self._process is None:
            return ""
        with self._log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - LOG_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return printable_lines("\n".join(lines[-SHOWN_LINES:]))

    def _describe(self, lines: str) -> str:
        """Say how the training is going: the line that a user decides by."""
        if self._process is None:
            return "Nothing is being trained."
        if self.is_running:
            return "Stopping after this step …" if self._was_stopped else "Training …"
        if self._process.returncode == 0:
            best = next((line for line in lines.splitlines() if line.startswith("Best F1 Score")), "")
            return f"Finished. {best}".strip()
        if self._was_stopped:
            return "Stopped. What was trained is kept."
        return f"Ended with exit code {self._process.returncode}: the log says why."

    def render(self) -> str:
        """Render the page."""
        lines = self._read_log()
        return self._template.render(
            tabs=list_tabs(self.config), data_folder=self.data_folder, error=self.error, lines=lines,
            is_running=self.is_running, state=self._describe(lines),
            moment=time.monotonic_ns(),  # a browser would only scroll to a place of the same address
        )  # fmt: skip


def list_tabs(config: WakewordConfig) -> list[tuple[str, list[tuple[str, list[Control]]]]]:
    """List the controls of panel 2, by tab and group."""
    return [
        (tab, [(title, _list_controls(config, section)) for title, section in groups]) for tab, groups in TABS.items()
    ]


def _list_controls(config: WakewordConfig, section: str) -> list[Control]:
    own = getattr(config, section)
    names = [(f"{section}.{one.name}", getattr(own, one.name)) for one in fields(own)]
    return [
        Control(name, TITLES.get(name, name.partition(".")[2].replace("_", " ")), value, type(value).__name__,
                CHOICES.get(name, ()))
        for name, value in names
    ]  # fmt: skip


def read_form(form: Mapping[str, str]) -> WakewordConfig:
    """Build the config from the form; a box that is not ticked is false.

    Raises:
        UserError: For a number that is none.
    """
    config = WakewordConfig(config_name="page")
    for groups in TABS.values():
        for _, section in groups:
            for control in _list_controls(config, section):
                setattr(getattr(config, section), control.name.partition(".")[2], _read_control(control, form))
    return config


def _read_control(control: Control, form: Mapping[str, str]) -> Any:
    text = form.get(control.name, "").strip()
    if control.kind == "bool":
        return text == "true"
    if control.kind == "str":
        return text
    try:
        return {"int": int, "float": float}[control.kind](text)
    except ValueError:
        raise UserError.about(control.name, "is no number", got=text or "nothing", remedy="write a number") from None


def main() -> None:
    """Serve the page until Ctrl-C."""
    parser = Parser(
        "-m src.ui.app", str(__doc__), more=EXIT_CODES, examples=["-m src.ui.app", "-m src.ui.app --port 0"]
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"0 takes a free one ({PORT})")
    parser.add_argument("--folder", type=read_path, default=Path("output/page"), help="config, log and checkpoints")
    given = parser.read(sys.argv[1:])
    page = TrainingPage(given.folder)
    server = make_server(HOST, given.port, page, threaded=True)
    print(f"open http://{HOST}:{server.server_port}/ in a browser; Ctrl-C ends the page", flush=True)
    try:
        server.serve_forever()
    finally:
        page.stop()
        page.wait()


if __name__ == "__main__":
    with exit_codes():
        main()
