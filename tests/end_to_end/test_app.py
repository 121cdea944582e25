"""app.py as a user runs it: over HTTP as a program, and in a browser, with good, bad and hostile files."""

from __future__ import annotations

import http.client
import json
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import pytest
import torch
from made_videos import write_video
from sharpstudent.checkpoint.store import save_checkpoint
from sharpstudent.models.vision import build_classifier
from small_disk import small_disk
from test_predict import MODELS, SIDE, draw_face, film, make_about, pytestmark, write_picture
from workplace import ENVIRONMENT, ROOT

__all__ = ["pytestmark"]
sys.path.insert(0, str(ROOT / "tests/tasks/deepfake/report"))
from browser import Page, find_browser, start_browser  # pyright: ignore[reportMissingImports]

SCHEMA = json.loads((ROOT / "docs/predictions.schema.json").read_text())


class Served:
    """A running app.py in a folder of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        environment = {**ENVIRONMENT, "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir(exist_ok=True)
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), *words, "--port", "0", "--device", "cpu"],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.said: list[str] = []
        for line in self.process.stdout:
            self.said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(found[1])
                return
        pytest.fail("".join(self.said))

    def send(self, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """The status and the body of a request; POST where it has a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("POST" if body else "GET", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()

    def predict(self, name: str, content: bytes, **fields: str) -> tuple[int, dict[str, Any]]:
        """The answer of the endpoint for programs."""
        kind = {"Content-Type": "multipart/form-data; boundary=limit"}
        status, body = self.send("/predict", make_form(name, content, **fields), **kind)
        return status, json.loads(body)

    def list_uploads(self) -> list[Path]:
        return list((self.folder / "tmp").glob("sharpstudent-app-*/session-*/uploads/*"))

    def list_sessions(self) -> list[Path]:
        return list((self.folder / "tmp").glob("sharpstudent-app-*/session-*"))

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def make_form(name: str, content: bytes, **fields: str) -> bytes:
    """A form as a browser sends it."""
    head = "--limit\r\nContent-Disposition: form-data; name="
    parts = [f'{head}"{key}"\r\n\r\n{value}\r\n'.encode() for key, value in fields.items()]
    return b"".join([*parts, f'{head}"file"; filename="{name}"\r\n\r\n'.encode(), content, b"\r\n--limit--\r\n"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models, a picture and a video."""
    found = tmp_path_factory.mktemp("app")
    (found / "weights").symlink_to(MODELS)
    torch.manual_seed(0)
    tensors = build_classifier("test_efficientnet", classes=2, dropout=0.2, side=SIDE).state_dict()
    for name, high, low in (("model", 90.0, -90.0), ("sure", -90.0, -90.0)):
        save_checkpoint(found / f"{name}.pth", {"model": tensors}, about=make_about(high, low))
    write_picture(found / "face.png", draw_face(1, 200)[0])
    write_picture(found / "<img src=x onerror=alert(1)>.png", draw_face(1, 200)[0])
    write_video(found / "film.avi", film(9))
    (found / "bad.jpg").write_bytes(b"no picture")
    return found


@pytest.fixture(scope="module")
def served(folder: Path) -> Generator[Served]:
    found = Served(folder, "model.pth", "sure.pth", "--most-megabytes", "1", "--most-waiting", "1")
    yield found
    assert found.end() == 0
    assert found.list_sessions() == []


def test_a_program_gets_the_schema_of_predictions_for_good_bad_and_hostile_files(served: Served, folder: Path) -> None:
    picture, video = (folder / "face.png").read_bytes(), (folder / "film.avi").read_bytes()
    hostile = "../../<script>x</script>.png"
    for name, content, status in (
        ("face.png", picture, "answered"),
        ("film.avi", video, "answered"),
        (hostile, picture, "answered"),
        ("..", picture, "answered"),
        ("cut.png", picture[:500], "unreadable"),
        ("empty.mp4", b"", "unreadable"),
        ("noise.mp4", bytes(range(256)) * 9, "unreadable"),
    ):
        code, found = served.predict(name, content)
        assert code == 200, (name, found)
        jsonschema.validate(found, SCHEMA)
        (one,) = found["predictions"]
        assert (one["input"], one["status"]) == (name, status)
    _, found = served.predict("face.png", picture, model="sure")
    assert found["predictions"][0]["outcome"] == "fake_likely"
    assert served.list_uploads() == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_line_for_curl_of_the_page_about_answers_gives_the_schema(served: Served, folder: Path) -> None:
    (line,) = re.findall(r"^    (curl .*)$", (ROOT / "docs/predict.md").read_text(), re.MULTILINE)
    assert "model=RUN" in line
    assert ":7860/" in line
    words = shlex.split(
        line.replace("holiday.mp4", "film.avi").replace("=RUN", "=sure").replace("7860", str(served.port))
    )
    ended = subprocess.run([*words, "--silent", "--max-time", "300"], cwd=folder, capture_output=True, check=True)
    found = json.loads(ended.stdout)
    jsonschema.validate(found, SCHEMA)
    assert [(one["input"], one["outcome"]) for one in found["predictions"]] == [("film.avi", "fake_likely")]


def test_what_is_too_large_or_comes_from_elsewhere_is_refused_with_a_message(served: Served, folder: Path) -> None:
    code, found = served.predict("large.png", bytes(1_200_000))
    assert (code, "larger than 1 MB" in found["error"]) == (413, True)
    code, found = served.predict("face.png", b"x", model="none")
    assert (code, "there are model, sure" in found["error"]) == (404, True)
    kind = {"Content-Type": "multipart/form-data; boundary=limit"}
    assert served.send("/predict", b"--limit--\r\n", **kind)[0] == 400
    assert served.send("/predict", make_form("a.png", b"x"), Origin="http://elsewhere.test", **kind)[0] == 403
    assert served.send("/", Host="elsewhere.test")[0] == 403
    assert served.send("/answers/..%2f..%2fmodel.pth/")[0] == 404
    assert served.send(f"/answers/{'0' * 16}/")[0] == 404
    assert served.list_uploads() == []


def test_more_files_than_may_wait_are_refused_until_a_place_is_free(served: Served) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=limit"}

    def hold_place() -> http.client.HTTPConnection:
        """Begin a request whose file does not come."""
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=120)
        connection.putrequest("POST", "/predict")
        for name, value in {**kind, "Content-Length": "1000"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection

    def is_answered(connection: http.client.HTTPConnection) -> bool:
        return bool(select.select([connection.sock], [], [], 0)[0])

    slow = [hold_place() for _ in range(2)]  # one that is judged and one that waits
    end = time.monotonic() + 300
    while (found := served.send("/predict", b"--limit--\r\n", **kind))[0] != 503:
        assert time.monotonic() < end, found
        # Where the quick request came between the two, the second of these was refused.
        slow = [hold_place() if is_answered(one) else one for one in slow]
        time.sleep(0.05)
    assert "2 files are waiting already" in json.loads(found[1])["error"]
    for connection in slow:
        connection.close()
    while (found := served.send("/predict", b"--limit--\r\n", **kind))[0] != 400:
        assert time.monotonic() < end, found
        time.sleep(0.05)
    assert b"No file was sent" in found[1]


def drop(page: Page, file: Path) -> None:
    """Drop a file on the page's field, and send the form.

    A page that has just been loaded may still scroll to its answer, so that the field is no longer where it was asked
    for: the file is then dropped again.
    """
    end = time.monotonic() + 300
    while page.evaluate("document.getElementById('file').files[0]?.name ?? ''") != file.name:
        assert time.monotonic() < end, "the field took no file"
        place = page.evaluate(
            "(field => { field.scrollIntoView({behavior: 'instant'}); const {x, y} = field.getBoundingClientRect(); "
            "return {x: x + 20, y: y + 20}; })(document.getElementById('file'))"
        )
        for kind in ("dragEnter", "dragOver", "drop"):
            data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
            page.call("Input.dispatchDragEvent", type=kind, data=data, **place)
        time.sleep(0.2)
    click(page, "button.main")


def take_camera_picture(page: Page) -> None:
    """Let the page show the camera, and judge what it sees."""
    page.evaluate("document.getElementById('camera').click()")
    end = time.monotonic() + 300
    while not page.evaluate(
        "document.getElementById('view').videoWidth > 0 && !document.getElementById('live').hidden"
    ):
        assert time.monotonic() < end, page.evaluate("document.getElementById('status').textContent")
        time.sleep(0.05)
    click(page, "#shoot")


def submit(page: Page, file: Path) -> None:
    """Give a file to the page's form, send it, and wait for the page that follows."""
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])
    click(page, "button.main")


def click(page: Page, selector: str) -> None:
    page.evaluate("window.isOld = true")
    page.evaluate(f"document.querySelector({selector!r}).click()")
    end = time.monotonic() + 300
    while page.evaluate("window.isOld === true || document.readyState !== 'complete'"):
        assert time.monotonic() < end, "no page followed"
        time.sleep(0.1)


@pytest.mark.skipif(find_browser() is None, reason="no Chromium here: make browser")
def test_the_page_answers_in_a_browser_at_390_px_and_asks_nobody_else(
    served: Served, folder: Path, tmp_path: Path
) -> None:
    program = find_browser()
    assert program is not None
    # A camera that shows the drawn face, from a file of JPEG pictures one after the other.
    film = b"".join([cv2.imencode(".jpg", draw_face(1, 200)[0])[1].tobytes()] * 30)
    (tmp_path / "camera.mjpeg").write_bytes(film)
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    camera += (f"--use-file-for-fake-video-capture={tmp_path / 'camera.mjpeg'}",)
    with start_browser(program, tmp_path, more_flags=camera) as browser:
        page = browser.open_page()
        page.open(f"http://127.0.0.1:{served.port}/", width=390, scheme="light")
        tree = page.call("Accessibility.getFullAXTree")["nodes"]
        named = {(node["role"]["value"], node.get("name", {}).get("value")) for node in tree if not node["ignored"]}
        assert {("button", "Judge the file"), ("button", "Try the example")} <= named
        assert any(role == "combobox" and name == "Model" for role, name in named)
        assert all(name for role, name in named if role in ("button", "combobox", "link", "image"))
        order = []
        for _ in range(5):
            for kind in ("keyDown", "keyUp"):
                page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            order.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert order[:4] == ["file", "model", "Judge the file", "Try the example"]
        page.evaluate("document.querySelector('button.main').click()")
        assert "Choose a file first" in page.evaluate("document.getElementById('status').textContent")
        for act, words in (
            (lambda: click(page, "button[name=example]"), "Heat map"),
            (lambda: submit(page, folder / "film.avi"), "Timeline"),
            (lambda: submit(page, folder / "<img src=x onerror=alert(1)>.png"), "Inconclusive"),
            (lambda: submit(page, folder / "bad.jpg"), "Not readable"),
            (lambda: drop(page, folder / "face.png"), "Inconclusive: the face scores"),
            (lambda: take_camera_picture(page), "Inconclusive: the face scores"),
            (
                lambda: (page.evaluate("document.getElementById('model').value = 1"), drop(page, folder / "face.png")),
                "Fake likely",
            ),
        ):
            act()
            assert words in page.evaluate("document.body.textContent")
            assert page.evaluate("document.activeElement.id") == "answer"
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("document.getElementById('model').selectedOptions[0].text") == "sure"
        page.take_picture(tmp_path / "page.png")
        assert {re.match(r"[a-z]+://[^/]+", one)[0] for one in page.list_requests()} == {  # pyright: ignore[reportOptionalSubscript]
            f"http://127.0.0.1:{served.port}"
        }
        assert page.list_complaints() == []
    assert served.list_uploads() == []


def test_an_answer_that_takes_too_long_is_given_up_and_a_start_removes_what_a_kill_left(folder: Path) -> None:
    first = Served(folder, "model.pth", "--most-seconds", "0.000001")
    code, found = first.predict("film.avi", (folder / "film.avi").read_bytes())
    assert (code, "--most-seconds" in found["error"]) == (503, True)
    (session,) = [one for one in first.list_sessions() if str(first.process.pid) in (one / ".lock").read_text()]
    (session / "uploads/left").mkdir()
    (session / "uploads/left/face.png").write_bytes(b"private")
    first.end(signal.SIGKILL)
    assert session.exists()
    second = Served(folder, "model.pth")
    assert not session.exists()
    assert any("removed" in line for line in second.said)
    assert second.end(signal.SIGINT) == 0


def test_a_full_disk_is_a_message_and_the_page_goes_on(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").symlink_to(MODELS)
    picture = (folder / "face.png").read_bytes()
    with small_disk(tmp_path / "tmp", "1m") as disk:
        served = Served(tmp_path, str(folder / "model.pth"))
        code, found = served.predict("large.mp4", bytes(1_500_000))
        assert (code, "no space" in found["error"].lower()) == (500, True), found
        assert served.list_uploads() == []
        assert served.predict("face.png", picture)[0] == 200
        assert served.end() == 0
        assert not any(disk.glob("sharpstudent-app-*/session-*"))
