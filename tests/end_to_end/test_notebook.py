"""The notebook of the documents runs from top to bottom: its cells in this process, and in a kernel of Jupyter."""

from __future__ import annotations

import contextlib
import io
import json
import os
from typing import Any

import pytest
from workplace import ROOT, Workplace

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
# In place of the demo's run, which takes minutes: the model that comes with the package, and a tiny config.
PARAMETERS = """
RUN, PICTURE = "deepfake-small", next((HERE / "data/labelled").rglob("*.png"))
CONFIG, EPOCHS = HERE / "configs/tiny.json", 1
"""


def read_cells() -> list[dict[str, Any]]:
    """The cells, with other parameters."""
    cells: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        is_parameters = "parameters" in cell["metadata"].get("tags", ())
        cell["source"] = PARAMETERS if is_parameters else "".join(cell["source"])
    return cells


def test_every_cell_runs_and_what_it_ends_with_shows_itself(tiny: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.folder)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in read_cells():
            if cell["cell_type"] == "code":
                exec(compile(cell["source"], str(NOTEBOOK), "exec"), names)
        answer = names["model"].predict(names["PICTURE"])
    assert answer.sentence.replace("'", "&#x27;") in answer._repr_html_()
    shown = names["stage"]._repr_html_()
    assert "epoch 1 is the best" in shown
    assert "<td>auc</td>" in shown
    assert len(names["losses"].values) > 1


def test_the_notebook_keeps_no_output_and_no_path() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "/home/" not in text
    assert all(not cell.get("outputs") for cell in json.loads(text)["cells"])


@pytest.mark.slow
def test_a_kernel_of_jupyter_runs_it_and_keeps_pictures(tiny: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `notebook`")
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `notebook`")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "lib"), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.from_dict({**json.loads(NOTEBOOK.read_text(encoding="utf-8")), "cells": read_cells()})
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tiny.folder)}}).execute()
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", ())]
    kinds = {kind for one in outputs for kind in one.get("data", ())}
    assert {"text/html", "image/png"} <= kinds
