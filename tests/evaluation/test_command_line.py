"""The two passes of the command line: which task is meant, and what its renderer reads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from sharpstudent.checkpoint.store import export_model, save_checkpoint
from sharpstudent.core.errors import UserError
from sharpstudent.core.onnx_file import seal_program
from sharpstudent.evaluation.command_line import COMPARE, EVALUATE, choose_task, parse_command_line
from sharpstudent.evaluation.renderer import Renderer
from sharpstudent.evaluation.run import list_pairs
from sharpstudent.tasks.deepfake.evaluation.renderer import FaceRenderer
from sharpstudent.tasks.deepfake.task import DeepfakeTask

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """The current folder, with the module of a task that is not installed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "signs.py").write_bytes((HERE / "signs.py").read_bytes())
    path, before = list(sys.path), sys.modules.pop("signs", None)
    sys.path[:] = [folder for folder in sys.path if Path(folder) != HERE]
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("signs", None)
    if before is not None:
        sys.modules["signs"] = before


def save(path: Path, task: str | None) -> Path:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"architecture": "net"} | ({} if task is None else {"task": task})
    save_checkpoint(path, {"model": {"weight": torch.zeros(2)}}, about=about)
    return path


def test_the_task_is_what_the_option_says_then_the_config_then_the_models_then_the_default(place: Path) -> None:
    mine = save(place / "run/weights/best_model.pth", "deepfake")
    for words in ([], ["nowhere.pth"], [str(save(place / "bare.pth", None))], [str(mine)], ["X=run"]):
        assert choose_task(words) is DeepfakeTask
    (place / "signs.json").write_text('{"task": "signs:SignTask"}')
    for words in (["run", "--config", "signs.json"], ["--task=signs:SignTask", "run"], ["--task", "signs:SignTask"]):
        assert choose_task(words).__name__ == "SignTask"
    assert choose_task(["--config", "signs.json", "--task", "deepfake"]) is DeepfakeTask


def test_an_export_says_its_task_as_its_checkpoint_does(place: Path) -> None:
    checkpoint = save(place / "run/weights/best_model.pth", "other")
    export_model(checkpoint, {})
    (place / "a.xml").write_text('<net><sharpstudent><metadata value="{&quot;task&quot;: &quot;other&quot;}"/>')
    (place / "a.pte").write_bytes(seal_program(b"a program", b'{"task": "other"}'))
    exports = [checkpoint.with_suffix(".safetensors"), place / "a.xml", place / "a.pte"]
    for path in (checkpoint, *exports, place / "run"):
        with pytest.raises(UserError) as caught:
            choose_task([str(path)])
        assert "other" in caught.value.as_text()
        assert "is not a known task" in caught.value.as_text()


def test_what_a_checkpoint_names_is_never_imported(place: Path) -> None:
    (place / "trap.py").write_text("raise SystemExit('imported')\n")
    with pytest.raises(UserError) as caught:
        choose_task([str(save(place / "a.pth", "trap:Task"))])
    assert "--task trap:Task" in caught.value.as_text()
    assert "trap" not in sys.modules


def test_models_of_two_tasks_are_refused_with_both_names(place: Path) -> None:
    one, other = save(place / "one.pth", "deepfake"), save(place / "other.pth", "signs:SignTask")
    with pytest.raises(UserError) as caught:
        choose_task([str(one), f"B={other}"])
    assert "one.pth: deepfake; " in caught.value.as_text()
    assert "other.pth: signs:SignTask" in caught.value.as_text()


def test_a_task_without_a_renderer_reads_splits_and_paths(place: Path) -> None:
    words = [
        "a.pth",
        "--task",
        "signs:SignTask",
        "--data",
        "night=test_noisy",
        "day",
        "--name",
        "Both",
        "--rounds",
        "50",
    ]
    renderer, request = parse_command_line(words, script=EVALUATE)
    assert type(renderer) is Renderer
    assert [(one.name, str(one.path)) for one in request.data] == [("night", "test_noisy"), (None, "day")]
    assert (request.title, request.rounds, request.costs) == ("Both", 50, False)
    words = ["--task", "signs:SignTask", "--before", "a.pth", "--distilled", "D=b.pth"]
    _, request = parse_command_line(words, script=COMPARE)
    assert [(model.role, model.name, str(model.path)) for model in request.models] == [
        ("before", None, "a.pth"),
        ("distilled", "D", "b.pth"),
    ]
    assert request.costs


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "signs:SignTask"], "MODEL"),
        (["a.pth", "--task", "signs:Nothing"], "did you mean|has nothing of that name"),
        (["a.pth", "--task", "nothing"], "is not a known task"),
        (["a.pth", "--task", "signs:SignTask", "--crops"], "--crops"),
        (["a.pth", "--task", "signs:SignTask", "--rounds", "3"], "from 10 to 100000"),
        (["a.pth", "--config", "nowhere.json"], "nowhere.json"),
    ],
)
def test_slips_are_refused_with_what_would_be_right(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_command_line(words, script=EVALUATE)


def test_a_role_that_is_given_several_times_names_runs_of_several_seeds(place: Path) -> None:
    words = ["--teacher", "T", "--distilled", "A", "--distilled", "B", "--control", "C", "--control", "D"]
    _, request = parse_command_line([*words, "--task", "deepfake"], script=COMPARE)
    assert [(str(one.path), one.role) for one in request.models] == [
        ("T", "teacher"),
        *(("A", "distilled"), ("B", "distilled"), ("C", "control"), ("D", "control")),
    ]
    assert list_pairs([one.role for one in request.models]) == [((1, 2), (3, 4)), ((1, 2), (0,))]
    with pytest.raises(UserError, match="different numbers of seeds"):
        parse_command_line([*words, "--control", "E", "--task", "deepfake"], script=COMPARE)


def test_detectors_keep_their_options(place: Path) -> None:
    words = ["a.pth", "--data", "x", "--crops", "--video-rules", "mean", "--fpr", "0.05", "--validation", "y"]
    renderer, request = parse_command_line(words, script=EVALUATE)
    assert isinstance(renderer, FaceRenderer)
    assert request.fprs == (0.05,)  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", [["--help"], ["--task", "signs:SignTask", "--help"], ["a.pth", "--rounds", "x"]])
def test_no_command_line_waits_for_torch(place: Path, words: list[str]) -> None:
    program = (
        "import sys\n"
        "from sharpstudent.core.errors import UserError\n"
        "from sharpstudent.evaluation.command_line import parse_command_line\n"
        "try:\n"
        "    parse_command_line(sys.argv[1:], script='evaluate_model.py')\n"
        "except (SystemExit, UserError):\n"
        "    pass\n"
        "print(sorted({'torch', 'sklearn', 'matplotlib', 'cv2'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=place, check=True, timeout=400
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_published_schemas_are_those_of_the_code() -> None:
    from sharpstudent.report.results import EvaluationResults
    from sharpstudent.tasks.deepfake.report.results import Results

    for name, model in (("evaluation", EvaluationResults), ("results", Results)):
        assert json.loads((ROOT / f"docs/{name}.schema.json").read_text()) == model.model_json_schema()
