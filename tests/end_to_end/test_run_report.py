"""A run ends with a report of its best model, on the data that chose it, beside the student before and the teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sharpstudent.checkpoint.store import load_checkpoint
from sharpstudent.models.vision import build_classifier
from workplace import ROOT, STAGE_1, STAGE_2, Ended, Workplace

CONFIG = "configs/tiny.json"
WITH_REPORT = ("--set", "report=true")


@pytest.fixture
def place(tiny: Workplace) -> Workplace:
    (tiny / "weights").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        teacher = build_classifier("test_resnet", classes=2, dropout=None)
    torch.save(teacher.state_dict(), tiny / "weights/tiny_teacher.pth")
    return tiny


def assert_done(ended: Ended) -> None:
    assert ended.code == 0, ended.out + ended.err


def read_results(place: Workplace, run: str) -> dict:
    jsonschema = pytest.importorskip("jsonschema", reason="holds the results against their published schema")
    results = json.loads((place.find_run(run) / "results.json").read_text())
    jsonschema.validate(results, json.loads((ROOT / "docs/results.schema.json").read_text()))
    return results


def test_both_stages_end_with_a_report_that_has_the_metrics_of_the_run(place: Workplace) -> None:
    first = place.call(STAGE_1, CONFIG, "-n", "first", *WITH_REPORT)
    assert_done(first)
    second = place.call(STAGE_2, CONFIG, "-n", "second", *WITH_REPORT)
    assert_done(second)
    for name, ended in (("first", first), ("second", second)):
        folder = place.find_run(name)
        assert f"report: {folder.relative_to(place.folder)}/report.html" in ended.out
        assert (folder / "model_card.md").read_text().startswith("---\n")
        results = read_results(place, name)
        about = load_checkpoint(folder / "weights/best_model.pth").about
        assert results["models"][0]["figures"]["frame_auc"]["value"] == pytest.approx(about["val_auc"], abs=1e-9)
        assert results["training"]["best_epoch"] == about["epoch"]
        assert any("optimistic" in note for note in results["data"][0]["notes"])
    results = read_results(place, "second")
    assert [model["role"] for model in results["models"]] == ["distilled", "before", "teacher"]
    assert [(one["a"], one["b"]) for one in results["comparisons"] if one["figure"] == "frame_auc"] == [
        ("second", "student before"),
        ("second", "teacher"),
    ]
    before = results["models"][1]["figures"]["frame_auc"]["value"]
    of_first = read_results(place, "first")["models"][0]["figures"]["frame_auc"]["value"]
    assert before == pytest.approx(of_first, abs=1e-6)
    assert "stage 2" in " ".join(results["verdict"]).lower()


def test_a_run_without_a_report_can_be_given_one_by_resuming_it(place: Workplace) -> None:
    assert_done(place.call(STAGE_1, CONFIG, "-n", "first"))
    folder = place.find_run("first")
    assert not (folder / "report.html").exists()
    weights = (folder / "weights/best_model.pth").read_bytes()
    assert_done(place.call(STAGE_1, "--resume", str(folder), *WITH_REPORT))
    assert (folder / "report.html").is_file()
    assert (folder / "weights/best_model.pth").read_bytes() == weights
    before = (folder / "report.html").stat().st_mtime_ns
    assert_done(place.call(STAGE_1, "--resume", str(folder), *WITH_REPORT))
    assert (folder / "report.html").stat().st_mtime_ns == before


def test_damaged_preflight_scores_are_reported_and_the_report_has_the_best_model_alone(place: Workplace) -> None:
    assert_done(place.call(STAGE_1, CONFIG, "-n", "first"))
    assert_done(place.call(STAGE_2, CONFIG, "-n", "second"))
    (place.find_run("second") / "logs/preflight_scores.json").write_text("[{")
    ended = place.call(STAGE_2, "--resume", str(place.find_run("second")), *WITH_REPORT)
    assert_done(ended)
    assert "preflight_scores.json cannot be read" in ended.out
    assert [model["name"] for model in read_results(place, "second")["models"]] == ["second"]


EARLIER = {"id": "sample_ids", "group": "identities", "clip": "clip_ids", "label": "labels", "logits": "logits"}


def write_as_before(kept: dict[str, dict]) -> dict[str, list]:
    """The form of an earlier version, with reals before fakes in each batch of 16 samples, which has 20 rows here."""
    labels = kept["label"]["values"]
    order = sorted(range(len(labels)), key=lambda row: (row // 20, labels[row]))
    return {EARLIER[name]: [kept[name]["values"][row] for row in order] for name in EARLIER}


def test_preflight_scores_in_the_order_of_an_earlier_version_give_the_same_report(
    place: Workplace, ffpp_root: Path
) -> None:
    (place / "data/ffpp").symlink_to(ffpp_root)
    pairs = (
        "data_source=ffpp",
        "data_root=data/ffpp",
        "validation_repeats=5",
    )  # 4 pairs and 16 further blends: two batches
    words = [word for pair in pairs for word in ("--set", pair)]
    assert_done(place.call(STAGE_1, CONFIG, "-n", "first", *words))
    assert_done(place.call(STAGE_2, CONFIG, "-n", "second", *words, *WITH_REPORT))
    folder, results = place.find_run("second"), read_results(place, "second")
    path = folder / "logs/preflight_scores.json"
    kept = json.loads(path.read_text())
    earlier = [write_as_before(table) for table in kept]
    assert [table["label"]["values"] for table in kept] == [[0, 1] * 4 + [1] * 16] * 2
    assert earlier[0]["labels"] == [0] * 4 + [1] * 20
    path.write_text(json.dumps(earlier))
    (folder / "report.html").unlink()
    assert_done(place.call(STAGE_2, "--resume", str(folder), *WITH_REPORT))
    again = read_results(place, "second")
    assert [model["name"] for model in again["models"]] == ["second", "student before", "teacher"]
    for part in ("models", "comparisons", "data", "mistakes"):
        assert again[part] == results[part]


def test_preflight_scores_of_other_pictures_are_reported_and_the_report_has_the_best_model_alone(
    place: Workplace,
) -> None:
    assert_done(place.call(STAGE_1, CONFIG, "-n", "first"))
    assert_done(place.call(STAGE_2, CONFIG, "-n", "second"))
    path = place.find_run("second") / "logs/preflight_scores.json"
    kept = json.loads(path.read_text())
    kept[1]["id"]["values"][0] += "x"
    path.write_text(json.dumps(kept))
    ended = place.call(STAGE_2, "--resume", str(place.find_run("second")), *WITH_REPORT)
    assert_done(ended)
    assert "preflight_scores.json is of other models or pictures" in ended.out
    assert [model["name"] for model in read_results(place, "second")["models"]] == ["second"]


def test_training_writes_the_same_weights_with_and_without_a_report(place: Workplace) -> None:
    assert_done(place.call(STAGE_1, CONFIG, "-n", "plain"))
    assert_done(place.call(STAGE_1, CONFIG, "-n", "reported", *WITH_REPORT))
    plain, reported = (
        load_checkpoint(place.find_run(name) / "weights/last.pth").tensors["model"] for name in ("plain", "reported")
    )
    for name, tensor in plain.items():
        assert torch.equal(tensor, reported[name])
