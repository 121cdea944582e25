"""The model card: front matter that hubs read, code that runs, and hostile names without effect."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpstudent.core.naming import escape_markdown
from sharpstudent.report.results import CostResult, MetricValue
from sharpstudent.tasks.deepfake.dataset.manifest import describe_bystanders
from sharpstudent.tasks.deepfake.report.card import render_model_card
from sharpstudent.tasks.deepfake.report.results import (
    CalibrationResult,
    CorruptionCurve,
    CorruptionPoint,
    DataResult,
    ModelResult,
    OperatingPointResult,
    Results,
)

POINT = OperatingPointResult(threshold=1.25, tpr=0.5, fpr=0.01)
HOSTILE = 'x|y](http://evil) <script>alert(1)</script>\n---\nlicense: mit\n```\n"quoted": *b* `c`'


def make_model(**changes: Any) -> ModelResult:
    figures = {
        "frame_auc@swaps": MetricValue(value=0.618, low=0.52, high=0.72),
        "frame_auc@swaps/warp": MetricValue(value=0.6, low=0.5, high=0.7),
        "frame_eer@swaps": MetricValue(value=0.4, low=0.3, high=0.5),
        "video_auc_mean@swaps": MetricValue(value=0.65),
        "frame_ap@swaps": MetricValue(value=None, note="no value: no fakes"),
        "frame_count@swaps": MetricValue(value=120.0),
        "people_count@swaps": MetricValue(value=33.0),
    }
    made: dict[str, Any] = {
        "name": "student",
        "role": "distilled",
        "file": "best_model.pth",
        "sha256": "a" * 64,
        "architecture": "tf_efficientnet_lite0",
        "image_size": 112,
        "figures": figures,
    }
    return ModelResult(**(made | changes))


def make_results(model: ModelResult, **changes: Any) -> Results:
    data = DataResult(
        name="swaps",
        kind="folder",
        split="test",
        fingerprint="f" * 64,
        frames=126,
        faces=120,
        real=60,
        fake=60,
        videos=58,
        people=33,
        faces_rule="largest",
        without_decision={"no face": 6},
        manipulations={"warp": 60},
    )
    made: dict[str, Any] = {
        "title": "t",
        "made_at": "2026-11-23T00:00:00Z",
        "command": "c",
        "verdict": (),
        "protocol": {},
        "data": (data,),
        "models": (model,),
    }
    return Results(**(made | changes))


def read_front(card: str) -> dict[str, Any]:
    start, front, _ = re.split(r"^---$", card, maxsplit=2, flags=re.M)
    assert start == ""
    return yaml.safe_load(front)


def test_the_front_matter_is_what_hubs_expect() -> None:
    model = make_model()
    front = read_front(render_model_card(make_results(model), model, training_data="me/faces"))
    assert front["license"] == "other"
    assert front["license_name"]
    assert front["library_name"] == "sharpstudent"
    assert front["pipeline_tag"] == "image-classification"
    assert {"deepfake-detection", "knowledge-distillation", "tf_efficientnet_lite0"} <= set(front["tags"])
    assert front["datasets"] == ["me/faces"]
    assert "roc_auc" in front["metrics"]
    (index,) = front["model-index"]
    first, of_kind = index["results"]
    assert first["task"]["type"] == "image-classification"
    assert first["dataset"] == {"name": "swaps", "type": "swaps", "split": "test"}
    assert first["metrics"][0] == {
        "type": "roc_auc",
        "value": 0.618,
        "name": "Frame AUC [0.5200, 0.7200]",
        "verified": False,
    }
    assert not any(metric["type"] == "average_precision" for metric in first["metrics"])  # it has no value
    assert of_kind["dataset"]["config"] == "warp"


def test_the_hubs_own_parser_accepts_the_card() -> None:
    hub = pytest.importorskip("huggingface_hub", reason="timm brings huggingface_hub")
    model = make_model()
    card = hub.ModelCard(render_model_card(make_results(model), model, licence="cc-by-nc-4.0"))
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.model_name == "student"
    found = {(one.dataset_name, one.metric_type, one.metric_value, one.verified) for one in card.data.eval_results}
    assert ("swaps", "roc_auc", 0.618, False) in found
    assert len(found) == 4
    again = hub.ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict()


def test_a_card_has_every_section() -> None:
    model = make_model()
    card = render_model_card(make_results(model), model)
    heads = re.findall(r"^## (.*)$", card, flags=re.M)
    assert heads == [
        "How to use it",
        "Intended use",
        "Training data",
        "Metrics",
        "Thresholds and probabilities",
        "Limits",
        "Cost",
        "Licence",
        "References",
    ]
    for words in (
        ".618 [.520, .720]",
        "120 frames of 33 people",
        "Frame AUC, warp",
        "no ground for an accusation",
        "6 of 126 frames (4.8 %) have no decision",
        "Robustness to compression, blur and other corruptions was not measured",
        "No thresholds and no temperature are stored",
        "Not measured. Energy",
        "Code: Apache-2.0",
        "nothing is granted here",
    ):
        assert words in card
    for author, year in (("Hinton", "2015"), ("Foret", "2020"), ("Mehta", "2022"), ("Shiohara", "2022")):
        assert re.search(rf"- {author}.*{year}", card)


def test_thresholds_cost_and_robustness_are_listed_where_they_are_known() -> None:
    def point(strength: int, value: float) -> CorruptionPoint:
        auc = MetricValue(value=value, low=value - 0.02, high=value + 0.02)
        return CorruptionPoint(strength=strength, label=f"quality {strength}", auc=auc)

    curve = CorruptionCurve(name="JPEG", unit="quality", points=(point(100, 0.9), point(30, 0.7)), area=0.8)
    model = make_model(
        calibration=CalibrationResult(
            fitted_on="validation of this run: 20 frames",
            temperature=1.5,
            log_loss=(0.5, 0.4),
            ece=(0.1, 0.05),
            operating_points={"frame": {"fpr_1pct": POINT}},
        ),
        cost=CostResult(
            parameters=3_370_000,
            macs=1_120_000_000,
            file_bytes=13_700_000,
            latency_ms=10.4,
            latency_p95_ms=11.0,
            memory_bytes=None,
            device="CPU, 2 cores",
        ),
        robustness=(curve,),
    )
    card = render_model_card(make_results(model), model)
    assert "| frame | fpr_1pct | +1.2500 | 0.500 | 0.0100 |" in card
    assert "Temperature: 1.5000" in card
    assert "chosen on validation of this run: 20 frames" in card
    assert "10.4 ms, 95th percentile 11.0 ms, on CPU, 2 cores" in card
    assert "JPEG at quality 30 harms student most" in card


@pytest.mark.parametrize(
    ("config", "training_data", "words"),
    [
        ({"teachers": [{"weights": "weights/FFc23.tar"}]}, None, "research only"),
        ({"task_section": {"data_source": "ffpp"}}, None, "FaceForensics++ is given out for non-commercial research"),
        (None, "FaceForensics++ (c23)", "FaceForensics++ is given out for non-commercial research"),
        (None, "Celeb-DF v2", "Celeb-DF is given out"),
        ({"student": {"init": "imagenet"}}, None, "Pretrained on ImageNet"),
        ({"task_section": {"data_source": "photos"}}, "my own photos", "No terms of third parties were recognised"),
    ],
)
def test_licence_terms_of_third_parties_are_named(
    config: dict[str, Any] | None, training_data: str | None, words: str
) -> None:
    model = make_model()
    card = render_model_card(make_results(model, config=config), model, licence="mit", training_data=training_data)
    assert words in " ".join(card.split())


def test_a_set_whose_fakes_may_show_real_bystanders_is_named_in_the_card() -> None:
    model, (sentence,) = make_model(), describe_bystanders(3)
    results = make_results(model)
    data = results.data[0].model_copy(update={"notes": ("another note", sentence)})
    lines = render_model_card(make_results(model, data=(data,)), model).splitlines()
    assert f"- {escape_markdown(f'swaps: {sentence}')}" in lines
    assert "bystanders" not in render_model_card(results, model)


def test_hostile_names_do_not_change_the_card() -> None:
    figures = {f"frame_auc@{HOSTILE}": MetricValue(value=0.6, low=0.5, high=0.7)}
    model = make_model(name=HOSTILE, file=HOSTILE, architecture=HOSTILE, figures=figures, trained={HOSTILE: HOSTILE})
    results = make_results(model, data=(), notes=(HOSTILE,))
    card = render_model_card(results, model, licence="mit", training_data=HOSTILE)
    front = read_front(card)
    assert front["license"] == "mit"
    assert set(front) == {"license", "library_name", "pipeline_tag", "tags", "metrics", "model-index"}
    body = re.split(r"^---$", card, maxsplit=2, flags=re.M)[2]
    code = re.findall(r"^(`{3,})python\n(.*?)\n\1$", body, flags=re.M | re.S)
    assert len(code) == 1
    compile(code[0][1], "card", "exec")
    prose = re.sub(r"(`+)[^`].*?[^`]\1(?!`)", "", body.replace(code[0][1], ""))
    assert not re.search(r"(?<!\\)<script", prose)
    assert not re.search(r"(?<!\\)\]\(", prose)
    assert "http://" not in prose
    assert body.count("\n## ") == 9


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_name_gives_a_well_formed_card(name: str) -> None:
    model = make_model(name=name, architecture=name)
    front = read_front(render_model_card(make_results(model), model))
    assert isinstance(front["model-index"][0]["name"], str)
    assert "\n" not in escape_markdown(name)


def test_a_model_without_metrics_has_no_model_index() -> None:
    model = ModelResult(name="m", file="f.onnx", sha256="0", architecture=None, image_size=None)
    front = read_front(render_model_card(make_results(model, data=()), model))
    assert "model-index" not in front
    assert "metrics" not in front


def test_the_code_of_the_card_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from sharpstudent.checkpoint.store import save_checkpoint
    from sharpstudent.models.vision import build_classifier

    torch.manual_seed(0)
    about = {"architecture": "tf_efficientnet_lite0", "classes": ["real", "fake"], "dropout": 0.3, "image_size": 64}
    classifier = build_classifier("tf_efficientnet_lite0", classes=2, dropout=0.3)
    save_checkpoint(tmp_path / "best_model.pth", {"model": classifier.state_dict()}, about=about)
    model = make_model(image_size=64)
    code = re.findall(r"^```python\n(.*?)\n```$", render_model_card(make_results(model), model), flags=re.M | re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code[0], "card", "exec"), names)
    with torch.no_grad():
        wanted = classifier.eval()(torch.zeros(1, 3, 64, 64))["logits"].softmax(dim=1)[:, 1]
    assert torch.allclose(names["probability"], wanted)
