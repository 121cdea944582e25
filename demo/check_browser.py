"""Run an exported model in a headless browser, and compare its probability with onnxruntime's.

python demo/check_browser.py                                                    # a small model of random weights
python demo/check_browser.py output/RUN/exports/RUN-pictures.onnx picture.png

onnxruntime-web is fetched from the npm registry into weights/browser/ once, and checked against its digests. With
--serve the page stays open for a browser of your own.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import json
import os
import queue
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lib"))

import numpy as np
from PIL import Image
from sharpstudent.core.arguments import advise_make
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.io import compute_sha256, write_bytes_atomically

PAGE = ROOT / "demo/browser/index.html"
PACKAGE = "onnxruntime-web@1.30.0"  # MIT; of the release of onnxruntime that is nearest to the pinned one
FILES = {
    "ort.wasm.min.js": "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
TOLERANCE = 1e-3
TIMEOUT_S = 180.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def fetch_runtime(folder: Path) -> None:
    """Fetch the files of onnxruntime-web that are missing or differ, by npm's own client."""
    if all((folder / name).is_file() and compute_sha256(folder / name) == digest for name, digest in FILES.items()):
        return
    with tempfile.TemporaryDirectory() as place:
        try:
            done = subprocess.run(["npm", "pack", PACKAGE], cwd=place, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise UserError.about(PACKAGE, "needs npm, which is not installed", remedy="install Node.js") from None
        archives = list(Path(place).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise UserError.about(PACKAGE, "could not be fetched from the npm registry", got=done.stderr.strip()[-300:])
        with tarfile.open(archives[0]) as archive:
            for name, digest in FILES.items():
                member = archive.extractfile(f"package/dist/{name}")
                content = b"" if member is None else member.read()
                if hashlib.sha256(content).hexdigest() != digest:
                    raise UserError.about(f"{PACKAGE}: {name}", "is not the file that this page was made for")
                folder.mkdir(parents=True, exist_ok=True)
                write_bytes_atomically(folder / name, content)


def write_example(path: Path) -> None:
    """Write a small classifier of pictures with random weights, as export_model.py would."""
    import torch
    from sharpstudent.core.types import Batch, ExportSpec
    from sharpstudent.deploy import convert
    from sharpstudent.evaluation.runtimes import ExportAbout
    from sharpstudent.models.vision import build_classifier

    torch.manual_seed(0)
    model, spec, side = build_classifier("test_efficientnet", classes=2, dropout=0.0), ExportSpec(picture="image"), 64
    batch = Batch({"image": torch.rand(convert.TRACED_ROWS, 3, side, side)}, rows={"id": ("a", "b", "c")})
    form = convert.add_preprocessing(convert.build_form(model.eval(), batch, spec), spec, 1.0)
    described = {"format": "onnx", "inputs": form.describe_inputs(), "outputs": form.outputs, "picture": form.picture}
    about = ExportAbout.model_validate({**described, "side": side})
    texts = {"export": about.model_dump_json(), "architecture": "test_efficientnet", "classes": '["first", "second"]'}
    convert.write_onnx(path, convert.to_onnx(form), texts)


def compute_here(model: Path, picture: Path) -> list[float]:
    """Compute the probabilities with onnxruntime in Python."""
    import onnxruntime

    pixels = np.asarray(Image.open(picture).convert("RGB"), np.uint8)[None]
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (probability,) = session.run(["probability"], {session.get_inputs()[0].name: pixels})
    return np.asarray(probability)[0].tolist()


def serve(folder: Path, answers: queue.Queue[Any]) -> http.server.ThreadingHTTPServer:
    """Serve a folder on a free port of this machine alone; what the page posts goes into the queue."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(folder))

        def do_POST(self) -> None:
            answers.put(json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), 2**20))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def ask_browser(address: str, answers: queue.Queue[Any]) -> dict[str, Any]:
    """Open the page in a headless browser and wait for what it posts."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UserError.about(
            "browser", "none is installed", expected=", ".join(BROWSERS), remedy=advise_make("browser")
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", address]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return answers.get(timeout=TIMEOUT_S)
        except queue.Empty:
            raise UserError.about("browser", f"gave no answer in {TIMEOUT_S:.0f} s") from None
        finally:
            process.terminate()
            process.wait(timeout=30)


def main() -> None:
    """Serve the page with a model, and compare the browser's answer with onnxruntime's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="a file of export_model.py --with-preprocessing")
    parser.add_argument("picture", type=Path, nargs="?", help="a picture without transparency")
    parser.add_argument("--serve", action="store_true", help="leave the page open at an address of this machine")
    parser.add_argument("--fetch", action="store_true", help="fetch onnxruntime-web, and do no more")
    read = parser.parse_args()
    runtime = ROOT / "weights/browser"
    fetch_runtime(runtime)
    if read.fetch:
        return
    with tempfile.TemporaryDirectory() as place:
        folder, answers = Path(place), queue.Queue[Any]()
        for file in (PAGE, *(runtime / name for name in FILES)):
            os.symlink(file, folder / file.name)
        if read.model is None:
            write_example(folder / "model.onnx")
        else:
            os.symlink(read.model.resolve(), folder / "model.onnx")
        if read.picture is None:
            pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
            Image.fromarray(pixels).resize((260, 180), Image.Resampling.BICUBIC).save(folder / "picture.png")
        else:
            Image.open(read.picture).convert("RGB").save(folder / "picture.png")
        server = serve(folder, answers)
        address = f"http://127.0.0.1:{server.server_port}/index.html"
        if read.serve:
            print(f"{address} (Ctrl-C ends it)")
            threading.Event().wait()
        wanted = compute_here(folder / "model.onnx", folder / "picture.png")
        answer = ask_browser(f"{address}?check", answers)
        server.shutdown()
    if "error" in answer:
        raise UserError.about("browser", "could not run the model", got=str(answer["error"])[:300])
    found = answer["probability"]
    largest = max(abs(a - b) for a, b in zip(found, wanted, strict=True))
    print(f"browser     {', '.join(f'{value:.6f}' for value in found)}")
    print(f"onnxruntime {', '.join(f'{value:.6f}' for value in wanted)}")
    print(f"largest difference {largest:.1e}, at most {TOLERANCE:g} is allowed")
    if not largest <= TOLERANCE:
        raise UserError.about("browser", "gives another probability than onnxruntime")


if __name__ == "__main__":
    with exit_codes():
        main()
