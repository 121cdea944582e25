"""A model goes to the Hugging Face hub and comes back: the package's own client, a small server in place of the hub."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sharpstudent
from sharpstudent.report.results import EvaluatedModel, EvaluatedSet, EvaluationResults, MetricAbout, MetricValue

NAME = "me/student"
COMMIT = "0" * 40
RESULTS = EvaluationResults(
    title="report", made_at="2026-11-30T00:00:00Z", command="", task="gaze", unit="head", group_unit="picture",
    protocol={},
    verdict=("It looks where people look.",), limits=("One seed.",),
    metrics={"auc": MetricAbout(title="AUC", direction="higher"), "l2": MetricAbout(title="L2", direction="lower")},
    data=(
        EvaluatedSet(
            name="validation of me", kind="validation", split=None, fingerprint="", samples=1, rows=1, groups=1
        ),
    ),
    models=(
        EvaluatedModel(
            name="student", file="best_model.pth", sha256=None, architecture=None,
            metrics={"auc": MetricValue(value=0.75), "l2": MetricValue(value=None)},
        ),
    ),
)  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """What the client asks of the hub for one repository: create, upload, look at a file, download it."""

    files: dict[str, bytes]
    created: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            return self.answer({"url": f"http://{self.headers['Host']}/{NAME}", "name": NAME})
        if self.path.endswith("/validate-yaml"):
            return self.answer({"errors": [], "warnings": []})
        if self.path.endswith("/preupload/main"):
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            return self.answer({"files": [{"path": one["path"], **mode} for one in json.loads(body)["files"]]})
        assert self.path.endswith("/commit/main"), self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer({"commitUrl": f"http://{self.headers['Host']}/{NAME}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_HEAD(self) -> None:
        self.send_file()

    def do_GET(self) -> None:
        if body := self.send_file():
            self.wfile.write(body)

    def send_file(self) -> bytes:
        body = self.files.get(self.path.partition("/resolve/main/")[2], b"")
        self.send_response(200 if body else 404)
        for name, value in (("ETag", '"1"'), ("X-Repo-Commit", COMMIT), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        if not body:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        return body

    def answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    class Here(Hub):
        files: dict[str, bytes] = {}  # noqa: RUF012, one server a test
        created: list[dict[str, Any]] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", Here
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / "weights").mkdir(parents=True)
    (tmp_path / "run" / "weights" / "best_model.safetensors").write_bytes(b"weights of a student")
    return tmp_path / "run"


def call(code: str, address: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own: the client reads its address when it is imported."""
    settings = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    environment = {**os.environ, **settings, "NO_PROXY": "127.0.0.1"}
    code = f"import sys\nfrom sharpstudent import api\n{code}\nassert 'torch' not in sys.modules"
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_a_run_goes_to_the_hub_with_a_card_and_comes_back(
    hub: tuple[str, type[Hub]], run: Path, tmp_path: Path
) -> None:
    address, server = hub
    (run / "results.json").write_text(RESULTS.to_json())
    code = f"print(api.push_to_hub({str(run)!r}, '{NAME}', token='hf_x'))\nprint(api.download('{NAME}').read_bytes())"
    ended = call(code, address, tmp_path / "home")
    assert ended.returncode == 0, ended.stderr
    told, back = ended.stdout.splitlines()[-2:]
    assert told == f"{address}/{NAME}"
    assert back == str(b"weights of a student")
    assert server.created[0]["visibility"] == "private"
    card = server.files["README.md"].decode()
    for part in (
        "library_name: sharpstudent",
        "value: 0.75",
        "| AUC | 0.7500 |",
        "It looks where people look",
        "One seed",
    ):
        assert part in card
    assert str(tmp_path) not in card


def test_the_card_of_a_report_is_sent_as_it_is(hub: tuple[str, type[Hub]], run: Path, tmp_path: Path) -> None:
    address, server = hub
    (run / "model_card.md").write_text("---\nlicense: cc-by-4.0\n---\n\n# my card\n")
    ended = call(f"api.push_to_hub({str(run)!r}, '{NAME}', token='hf_x', private=False)", address, tmp_path / "home")
    assert ended.returncode == 0, ended.stderr
    assert server.files["README.md"].decode() == (run / "model_card.md").read_text()
    assert server.created[0].get("visibility") != "private"


def test_damaged_results_are_one_message_and_nothing_is_sent(
    hub: tuple[str, type[Hub]], run: Path, tmp_path: Path
) -> None:
    (run / "results.json").write_text('{"task": "gaze"')
    with pytest.raises(sharpstudent.UserError, match="is not results of a run"):
        sharpstudent.push_to_hub(run, NAME)
    assert not hub[1].created


@pytest.mark.parametrize("missing", ["a report", "a model on the hub"])
def test_what_is_missing_is_one_message(missing: str, hub: tuple[str, type[Hub]], run: Path, tmp_path: Path) -> None:
    what = f"api.push_to_hub({str(run)!r}, '{NAME}')" if missing == "a report" else f"api.download('{NAME}')"
    code = f"try:\n    {what}\nexcept api.UserError as error:\n    print(error)"
    ended = call(code, hub[0], tmp_path / "home")
    assert ended.returncode == 0, ended.stderr
    expected = "results.json: does not exist" if missing == "a report" else f"hf:{NAME}: cannot be had from the hub"
    assert expected in ended.stdout
    assert "remedy: " in ended.stdout
