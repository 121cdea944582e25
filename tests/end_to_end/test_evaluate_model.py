"""evaluate_model.py and compare_models.py as a user runs them, on two stages of a tiny run."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import jsonschema
import pytest
import torch
from ffpp_tree import write_labelled
from rich.cells import cell_len
from safetensors import safe_open
from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
from sharpstudent.metrics.binary import compute_auc
from sharpstudent.models.vision import build_classifier
from sharpstudent.tasks.deepfake.report.results import Results
from workplace import ROOT, STAGE_1, STAGE_2, TINY, Ended, Workplace

EVALUATE, COMPARE = "evaluate_model.py", "compare_models.py"
FAST = ("--rounds", "20", "--workers", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Workplace:
    """Both stages of a tiny run, a teacher, and a second set of drawn faces: other people, bigger pictures."""
    place = Workplace(tmp_path_factory.mktemp("evaluated"))
    (place / "data").mkdir()
    (place / "data/labelled").symlink_to(labelled_root)
    write_labelled(place / "data/other", people=5, size=80)
    (place / "configs/tiny.json").write_text(TINY)
    (place / "weights").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        teacher = build_classifier("test_resnet", classes=2, dropout=None)
    torch.save(teacher.state_dict(), place / "weights/tiny_teacher.pth")
    for script, name in ((STAGE_1, "first"), (STAGE_2, "second")):
        ended = place.call(script, "configs/tiny.json", "-n", name)
        assert ended.code == 0, ended.err
    return place


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def without_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds: only tests with the fixture `whole_report` write charts and pages."""
    if "whole_report" in request.fixturenames:
        return
    from sharpstudent.tasks.deepfake.evaluation import assemble as output

    def write_results(folder: Path, results: Results, *_: object) -> list[Path]:
        (folder / "results.json").write_text(results.to_json())
        return []

    monkeypatch.setattr(output, "write_report", write_results)


@pytest.fixture
def whole_report() -> None:
    """Asked for by tests that look at report.html."""


def name_run(place: Workplace, name: str) -> str:
    return str(place.find_run(name).relative_to(place.folder))


def read_results(folder: Path) -> dict:
    """results.json, validated against its published schema."""
    results = json.loads((folder / "results.json").read_text())
    jsonschema.validate(results, json.loads((ROOT / "docs/results.schema.json").read_text()))
    return results


def assert_done(ended: Ended) -> None:
    assert ended.code == 0, ended.out + ended.err


def assert_refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended.out + ended.err
    assert ended.err.count("error:") == 1
    assert "Traceback" not in ended.out + ended.err
    for word in words:
        assert word in ended.err, f"{word!r} is not in\n{ended.err}"


@pytest.mark.usefixtures("whole_report")
def test_one_model_on_a_folder_of_crops_writes_all_documented_files(place: Workplace, out: Path) -> None:
    data = "other=data/other"
    ended = place.call(EVALUATE, name_run(place, "second"), "--data", data, "--crops", "--out", str(out), *FAST)
    assert_done(ended)
    assert {path.name for path in out.iterdir()} == {
        *(".lock", "report.html", "results.json", "scores.csv", "models.csv", "models.md", "model_card.md", "figures"),
    }
    results = read_results(out)
    (model,), (data_set,) = results["models"], results["data"]
    assert (data_set["name"], data_set["real"], data_set["fake"], data_set["people"]) == ("other", 5, 5, 5)
    # scores.csv is enough to compute the metrics again.
    with (out / "scores.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    auc = compute_auc([float(row["margin"]) for row in rows], [int(row["label"]) for row in rows])
    assert model["figures"]["frame_auc"]["value"] == pytest.approx(auc, abs=1e-12)
    assert model["calibration"]["fitted_on"].startswith("validation of this run")
    assert "frame_accuracy_at_eer" in model["figures"]
    assert results["training"]["columns"]["epoch"] == [1.0, 2.0]
    assert str(out / "report.html") in ended.out
    for sentence in results["verdict"][:6]:
        assert sentence in ended.out


def list_wide_lines(text: str) -> list[str]:
    """The lines that a terminal of 80 columns would break within a word; a single long word cannot be wrapped."""
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
    return [line for line in lines if cell_len(line) > 80 and len(line.removesuffix(" \\").split()) > 1]


def test_every_line_in_a_terminal_of_80_columns_fits_or_is_wrapped_at_words(
    place: Workplace, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TTY_COMPATIBLE", "1"), ("NO_COLOR", "1"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    long = "a student with a name that is far too long for a table, and a_part_without_spaces_" + "x" * 30
    data = f"a set of other people whose name is long, too={place / 'data/other'}"
    teacher = ("--teacher", f"{long}=weights/tiny_teacher.pth", "--architecture", f"{long}=test_resnet")
    teacher = (*teacher, "--image-size", f"{long}=32")
    runs = ("--before", name_run(place, "first"), "--distilled", f"{long} 測試={name_run(place, 'second')}")
    for ended in (
        place.call(COMPARE, *teacher, *runs, "--data", data, "--crops", "--no-costs", "--out", str(out), *FAST),
        place.call(EVALUATE, f"{long}={name_run(place, 'second')}", "--out", f"{out}_2", *FAST, "--robustness", "blur"),
        place.call(STAGE_1, "configs/tiny.json", "-n", "a_run_with_" + "long_" * 9 + "name"),
    ):
        assert_done(ended)
        assert "\x1b" in ended.out  # it took this for a terminal
        assert list_wide_lines(ended.out) == []


def test_metrics_do_not_depend_on_loader_processes_or_batch_size(place: Workplace, tmp_path: Path) -> None:
    found = []
    for number, more in enumerate((("--workers", "0"), ("--workers", "2"), ("--workers", "0", "--batch-size", "3"))):
        folder = tmp_path / str(number)
        words = (name_run(place, "second"), "--data", "data/other", "--crops", "--out", str(folder), "--rounds", "20")
        assert_done(place.call(EVALUATE, *words, "--device", "cpu", *more))
        found.append(read_results(folder)["models"][0]["figures"])
    assert found[0] == found[1]
    for name, figure in found[0].items():
        for end in ("value", "low", "high"):
            assert figure[end] == pytest.approx(found[2][name][end], abs=1e-6), name


def test_without_data_the_runs_own_validation_is_evaluated_and_gives_its_own_auc(place: Workplace, out: Path) -> None:
    assert_done(place.call(EVALUATE, name_run(place, "second"), "--out", str(out), *FAST))
    results = read_results(out)
    about = load_checkpoint(place.find_run("second") / "weights/best_model.pth").about
    assert results["models"][0]["figures"]["frame_auc"]["value"] == pytest.approx(about["val_auc"], abs=1e-9)
    assert results["data"][0]["kind"] == "validation"
    assert any("optimistic" in note for note in results["data"][0]["notes"])


def test_the_two_stages_and_the_teacher_are_compared_with_cost_and_sentences(place: Workplace, out: Path) -> None:
    ended = place.call(
        *(COMPARE, "--teacher", "weights/tiny_teacher.pth", "--architecture", "tiny_teacher=test_resnet"),
        *("--before", name_run(place, "first"), "--distilled", name_run(place, "second")),
        *("--image-size", "tiny_teacher=32", "--data", "data/other", "--crops", "--out", str(out), *FAST),
    )
    assert_refused(ended, "tiny_teacher=MODEL", "2 problems")
    ended = place.call(
        *(COMPARE, "--teacher", "T=weights/tiny_teacher.pth", "--architecture", "T=test_resnet"),
        *("--before", name_run(place, "first"), "--distilled", name_run(place, "second")),
        *("--image-size", "T=32", "--data", "data/other", "--crops", "--out", str(out), *FAST),
    )
    assert_done(ended)
    results = read_results(out)
    assert [model["role"] for model in results["models"]] == ["teacher", "before", "distilled"]
    for model in results["models"]:
        cost = model["cost"]
        assert cost["parameters"] > 0
        assert cost["macs"] > 0
        assert cost["latency_ms"] <= cost["latency_p95_ms"]
    pairs = {(one["a"], one["b"]) for one in results["comparisons"]}
    names = {model["role"]: model["name"] for model in results["models"]}
    assert pairs == {
        (names[a], names[b]) for a, b in (("distilled", "before"), ("distilled", "teacher"), ("before", "teacher"))
    }
    assert results["bands"] == []  # they are of FaceForensics++
    assert "guide expects" not in ended.out
    shown = [one for one in results["mistakes"] if one["picture"] is not None]
    assert len({one["sample_id"].split("/")[1] for one in shown}) == len(shown) > 0  # each person once
    assert {one["calibrated"] is None for one in shown if one["model"] == "T"} <= {True}
    assert "as the model gives them, because no temperature is stored: T" in results["protocol"]["probabilities"]
    assert "Parameters" in ended.out
    assert "stage 2 as a whole" in results["verdict"][0].lower()
    assert len(list(out.glob("model_card_*.md"))) == 3


def test_an_exported_onnx_file_gives_the_metrics_of_its_checkpoint(place: Workplace, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="the export of torch needs it")
    checkpoint = load_checkpoint(place.find_run("second") / "weights/best_model.pth")
    model = build_classifier(checkpoint.about["architecture"], classes=2, dropout=0.0).eval()
    model.load_state_dict(checkpoint.tensors["model"])

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.model.compute_logits(images)

    file = tmp_path / "student.onnx"
    torch.onnx.export(Logits(), (torch.rand(1, 3, 32, 32),), file, input_names=["images"], output_names=["logits"])
    data = ("--data", "data/other", "--crops")
    words = (name_run(place, "second"), f"exported={file}", *data, "--out", str(tmp_path / "out"), *FAST)
    assert_done(place.call(EVALUATE, *words))
    own, exported = read_results(tmp_path / "out")["models"]
    assert exported["figures"]["frame_auc"]["value"] == pytest.approx(own["figures"]["frame_auc"]["value"], abs=1e-6)
    loss = "frame_log_loss"
    assert exported["figures"][loss]["value"] == pytest.approx(own["figures"][loss]["value"], abs=1e-4)


def test_thresholds_chosen_elsewhere_are_stored_and_used_the_next_time(place: Workplace, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place.find_run("second"), run)
    before = load_checkpoint(run / "weights/best_model.pth")
    words = ("--validation", "data/labelled", "--fpr", "0.25", "--store", "--data", "data/other", "--crops")
    assert_done(place.call(EVALUATE, str(run), *words, "--out", str(tmp_path / "one"), *FAST))
    after = load_checkpoint(run / "weights/best_model.pth")
    assert after.notes == ()
    assert "fpr_25pct" in after.about["calibration"]["operating_points"]["frame"]
    assert {**after.about, "calibration": None} == {**before.about, "calibration": None}
    for name, tensor in before.tensors["model"].items():
        assert torch.equal(tensor, after.tensors["model"][name])
    assert_done(
        place.call(EVALUATE, str(run), "--data", "data/other", "--crops", "--out", str(tmp_path / "two"), *FAST)
    )
    one, two = (read_results(tmp_path / name)["models"][0]["figures"] for name in ("one", "two"))
    assert "frame_bpcer_at_fpr_25pct" in one
    assert one == two


def test_storing_thresholds_keeps_what_the_export_says_of_its_selection(place: Workplace, tmp_path: Path) -> None:
    ended = place.call(
        *(STAGE_1, "configs/tiny.json", "-n", "by_eer", "--set", "selection_metric=eer", "--set", "ema_decay=0.5"),
        *("--set", f"output_root={tmp_path}"),
    )
    assert_done(ended)
    (run,) = tmp_path.glob("by_eer_*")
    exported = run / "weights/best_model.safetensors"

    def read_metadata() -> dict[str, str]:
        with safe_open(exported, "pt") as file:
            return file.metadata()

    before = read_metadata()
    assert before["metric"] == "val_eer"
    words = ("--validation", "data/labelled", "--store", "--data", "data/other", "--crops")
    assert_done(place.call(EVALUATE, str(run), *words, "--out", str(tmp_path / "out"), *FAST))
    after = read_metadata()
    assert {name: after[name] for name in ("epoch", "value", "metric")} == {
        name: before[name] for name in ("epoch", "value", "metric")
    }
    assert after["calibration"] != before["calibration"]
    assert read_results(tmp_path / "out")["training"]["metric"] == "val_eer"


def test_thresholds_are_never_chosen_on_the_evaluated_faces(place: Workplace, out: Path) -> None:
    words = ("--validation", "data/other", "--data", "again=data/other", "--crops", "--out", str(out), *FAST)
    assert_refused(place.call(EVALUATE, name_run(place, "second"), *words), "--validation", "same faces")
    assert not out.exists()


def test_a_picture_that_cannot_be_read_is_counted_and_not_scored(place: Workplace, tmp_path: Path) -> None:
    write_labelled(tmp_path / "torn", people=4, size=80)
    torn = tmp_path / "torn/fake/person_02/0.png"
    torn.write_bytes(torn.read_bytes()[:50])
    words = ("--data", str(tmp_path / "torn"), "--crops", "--out", str(tmp_path / "out"), *FAST)
    ended = place.call(EVALUATE, name_run(place, "second"), *words)
    assert_done(ended)
    (data,) = read_results(tmp_path / "out")["data"]
    assert sum(data["without_decision"].values()) == 1
    with (tmp_path / "out/scores.csv").open(newline="") as lines:
        undecided = [row for row in csv.DictReader(lines) if row["decided"] == "0"]
    assert [(row["label"], row["margin"], row["fake"]) for row in undecided] == [("1", "", "")]
    assert "not evaluated: fake/person_02/0.png: " in ended.out


def test_robustness_of_two_corruptions_is_in_the_results(place: Workplace, out: Path) -> None:
    words = ("--robustness", "jpeg", "blur", "--data", "data/other", "--crops", "--out", str(out), *FAST)
    assert_done(place.call(EVALUATE, name_run(place, "second"), *words))
    (model,) = read_results(out)["models"]
    assert {curve["name"] for curve in model["robustness"]} == {"jpeg", "blur"}
    for curve in model["robustness"]:
        assert curve["points"][0]["auc"]["value"] == pytest.approx(model["figures"]["frame_auc"]["value"], abs=1e-6)


def test_videos_are_scored_by_the_rules_of_the_options(place: Workplace, tmp_path: Path) -> None:
    for person in range(3):  # two pictures a person: a clip
        for label in ("real", "fake"):
            shutil.copytree(place / f"data/other/{label}/person_{person:02d}", tmp_path / "set" / label / f"p{person}")
            source = place / f"data/other/{label}/person_{(person + 1) % 5:02d}/0.png"
            shutil.copy(source, tmp_path / "set" / label / f"p{person}/1.png")
    words = (
        "--data",
        str(tmp_path / "set"),
        "--crops",
        "--clips",
        "--video-rules",
        "top1frames",
        "mean",
        "--out",
        str(tmp_path / "out"),
    )
    assert_done(place.call(EVALUATE, name_run(place, "second"), *words, *FAST))
    results = read_results(tmp_path / "out")
    figures = results["models"][0]["figures"]
    assert {"video_auc_top1frames", "video_auc_mean"} <= set(figures)
    assert "video_auc_max" not in figures
    assert "top1frames" in results["protocol"]["videos"]


def test_errors_by_the_columns_of_a_table_are_in_the_results(place: Workplace, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("person,sex,age\n" + "".join(f"person_{n:02d},{'mf'[n % 2]},{20 + n}\n" for n in range(3)))
    out = tmp_path / "out"
    words = ("--data", "data/other", "--crops", "--out", str(out), *FAST)
    assert_done(place.call(EVALUATE, name_run(place, "second"), *words, "--by", "sex,age", "--by-table", str(table)))
    sex, age = read_results(out)["models"][0]["by_group"]
    assert [group["value"] for group in sex["groups"]] == ["f", "m"]
    assert len(age["groups"]) == 3
    assert sex["without"] > 0
    refused = place.call(EVALUATE, name_run(place, "second"), *words, "--by", "sex")
    assert refused.code == 2
    assert "--by-table people.csv" in refused.err
    refused = place.call(EVALUATE, name_run(place, "second"), *words, "--by", "hat", "--by-table", str(table))
    assert refused.code == 2
    assert "lacks the column hat" in refused.err


def test_names_that_are_formulas_are_escaped_in_every_table_and_read_back(place: Workplace, tmp_path: Path) -> None:
    write_labelled(tmp_path / "set", people=3, size=80)
    for label in ("real", "fake"):
        (tmp_path / f"set/{label}/person_01").rename(tmp_path / f"set/{label}/=1+1")
    (tmp_path / "people.csv").write_text("person,sex\nperson_00,m\n'=1+1,f\n")  # as scores.csv names them
    words = ("--data", f"@set={tmp_path / 'set'}", "--crops", "--by", "sex", "--by-table", str(tmp_path / "people.csv"))
    words = (f"+SUM(1)={name_run(place, 'second')}", *words)
    assert_done(place.call(EVALUATE, *words, "--out", str(tmp_path / "out"), *FAST))
    with (tmp_path / "out/scores.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {(row["model"], row["source"]) for row in rows} == {("'+SUM(1)", "'@set")}
    assert all(0 < float(row["fake_calibrated"]) < 1 for row in rows)
    assert {row["person"] for row in rows} == {"person_00", "'=1+1", "person_02"}
    assert any(row["margin"].startswith("-") for row in rows)  # a number is none
    assert (tmp_path / "out/models.csv").read_text().splitlines()[1].startswith("'+SUM(1),")
    (sex,) = read_results(tmp_path / "out")["models"][0]["by_group"]
    assert [group["value"] for group in sex["groups"]] == ["f", "m"]


def test_a_report_replaces_an_earlier_one_and_is_never_written_among_other_files(place: Workplace, out: Path) -> None:
    words = ("--data", "data/other", "--crops", "--out", str(out), *FAST)
    assert_done(place.call(EVALUATE, name_run(place, "second"), name_run(place, "first"), *words))
    assert_done(place.call(EVALUATE, name_run(place, "second"), *words))
    assert [path.name for path in out.glob("model_card*")] == ["model_card.md"]  # nothing of the earlier one is left
    other = out.parent / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    ended = place.call(EVALUATE, name_run(place, "second"), *words[:3], "--out", str(other), *FAST)
    assert_refused(ended, "--out", "holds other things")
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ("MODEL",)),
        (("nowhere.pth", "--data", "data/other", "--crops"), ("nowhere.pth", "does not exist")),
        (("output/second", "--data", "nowhere"), ("output/second",)),
        (("RUN", "--data", "nowhere"), ("nowhere", "does not exist")),
        (("RUN", "--data", "data/labelled/real", "--crops"), ("real", "fake")),
        (("RUN", "--store"), ("--store", "--validation")),
        (
            ("RUN", "--architecture", "X=test_resnet", "--mean", "Y=1,2"),
            ("2 problems", "called X", "--mean", "0.5,0.5,0.5"),
        ),
        (("RUN", "--image-size", "9", "--data", "data/other", "--crops"), ("--image-size", "32 to 2048")),
        (("RUN", "--std", "1,1,1", "--data", "data/other", "--crops"), ("RGB in 0..1", "leave mean and std out")),
        (("RUN", "RUN", "--data", "data/other", "--crops"), ("two models", "NAME=MODEL")),
        (("RUN", "--robustness", "rain", "--data", "data/other", "--crops"), ("rain", "jpeg")),
        (("RUN", "--faces", "none"), ("--faces",)),
        (("RUN", "--data", "data/other", "--crops", "--video-rules", "median"), ("--video-rules", "median", "top10")),
        (("RUN", "--data", "data/other", "--crops", "--layout", "photos"), ("--layout", "no meaning")),
        (
            ("RUN", "--data", "data/other", "--crops", "--split", "train", "--faces", "max"),
            ("--faces", "no meaning"),
        ),
        (("RUN", "--fpr", "2", "--validation", "data/other"), ("--fpr", "between 0 and 1")),
        (("weights/tiny_teacher.pth", "--data", "data/other", "--crops"), ("architecture", "--architecture")),
        (("configs/tiny.json", "--data", "data/other", "--crops"), ("configs/tiny.json",)),
    ],
)
def test_invalid_arguments_are_refused_with_a_remedy_and_write_nothing(
    place: Workplace, words: tuple[str, ...], said: tuple[str, ...]
) -> None:
    before = place.list_output()
    run = name_run(place, "second")
    assert_refused(place.call(EVALUATE, *(run if word == "RUN" else word for word in words)), *said)
    assert place.list_output() == before


def test_one_class_alone_is_refused_with_a_message(place: Workplace, tmp_path: Path) -> None:
    write_labelled(tmp_path / "one", people=3)
    shutil.rmtree(tmp_path / "one/fake")
    (tmp_path / "one/fake").mkdir()
    words = ("--data", str(tmp_path / "one"), "--crops", "--out", str(tmp_path / "out"), *FAST)
    assert_refused(place.call(EVALUATE, name_run(place, "second"), *words), "fake")


def test_a_model_with_nan_outputs_is_named(place: Workplace, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place.find_run("second"), run)
    checkpoint = load_checkpoint(run / "weights/best_model.pth")
    broken = {  # finite, and too large to compute with
        name: tensor * 1e30 if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint.tensors["model"].items()
    }
    save_checkpoint(run / "weights/best_model.pth", {"model": broken}, about=checkpoint.about)
    words = ("--data", "data/other", "--crops", "--out", str(tmp_path / "out"), *FAST)
    assert_refused(place.call(EVALUATE, str(run), *words), "not numbers", "best_model.pth")
    assert not (tmp_path / "out").exists()


def test_nothing_to_compare_is_refused(place: Workplace) -> None:
    assert_refused(place.call(COMPARE), "fewer than two models")
    assert_refused(place.call(COMPARE, "--before", name_run(place, "first")), "fewer than two models", EVALUATE)


def test_crops_of_any_size_are_resized_to_the_input_as_in_training(place: Workplace, tmp_path: Path) -> None:
    for path in sorted((place / "data/other").rglob("*.png")):
        target = tmp_path / "small" / path.relative_to(place / "data/other")
        target.parent.mkdir(parents=True, exist_ok=True)
        image = cv2.imread(str(path))
        assert image is not None
        cv2.imwrite(str(target), cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR))
    found = []
    for name, folder in (("one", "data/other"), ("two", str(tmp_path / "small"))):
        words = ("--data", f"set={folder}", "--crops", "--out", str(tmp_path / name), *FAST)
        assert_done(place.call(EVALUATE, name_run(place, "second"), *words))
        found.append(read_results(tmp_path / name)["models"][0]["figures"])
    assert found[0] == found[1]
