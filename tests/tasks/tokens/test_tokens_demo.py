"""The experiment of `make demo-tokens`: which runs belong to it, and what its tables say."""

import json
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.tokens import demo
from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer


class Noted(demo.Experiment):
    """Notes the runs in place of training them."""

    def train(self, stage: int, name: str, keys: Any) -> None:
        NOTED.append((stage, name, keys))


NOTED: list[tuple[int, str, Any]] = []


def name_weights(run: str) -> str:
    """The best checkpoint of a run of the experiment, whose config has the name of the run."""
    stem = RunConfig.folder_stem.fget(SimpleNamespace(name=run, config_name=run))  # type: ignore[attr-defined]
    return f"out/runs/{stem}_11_30_18_30_40/weights/best_model.pth"


def test_every_arm_goes_on_from_its_own_student_and_for_as_many_steps() -> None:
    NOTED.clear()
    Noted(Path("out"), {"source": "mnist", "image_size": 64}).train_seed(2)
    names = [name for _, name, _ in NOTED]
    assert names == [
        "s2_teacher", "s2_tm", "s2_tm_alone", "s2_tm_distilled", "s2_tm_sam", "s2_mlp", "s2_mlp_alone", "s2_plain",
        "s2_plain_alone", "s2_frozen", "s2_frozen_alone", "s2_full", "s2_full_alone",
    ]  # fmt: skip
    by_name = {name: keys for _, name, keys in NOTED}
    assert {keys["data"]["fold"] for keys in by_name.values()} == {1}
    assert by_name["s2_tm_alone"]["student"]["patch_size"] == by_name["s2_plain"]["student"]["patch_size"] == 16
    assert by_name["s2_tm_distilled"]["lr_factors"].keys() == {"*.voting", "*.ta_*"}
    assert by_name["s2_frozen_alone"]["lr_factors"].keys() == {"*.voting"}
    assert {keys["epoch"] for name, keys in by_name.items() if name != "s2_teacher"} == {8}
    assert {name for name, keys in by_name.items() if keys["rho"]} == {"s2_tm_sam"}
    for name in ("s2_tm_alone", "s2_tm_distilled"):
        pattern = by_name[name]["pretrained_student_weights"]
        assert [run for run in names if fnmatch(name_weights(run), pattern)] == ["s2_tm"]
        assert [run for run in names if fnmatch(name_weights(run), by_name[name]["teacher_weights"])] == ["s2_teacher"]
    assert [term["term"] for term in by_name["s2_tm_alone"]["stage2"]["terms"]] == ["hard"]
    assert [term["term"] for term in by_name["s2_tm_distilled"]["stage2"]["terms"]] == ["hard", "kd", "self"]
    assert by_name["s2_tm_sam"]["stage2"] == by_name["s2_tm_distilled"]["stage2"]
    experiment = Noted(Path("out"), {"source": "mnist", "image_size": 28}, rho=0.0)
    experiment.train_seed(1)
    assert not any("sam" in name for name in [*experiment.list_models(), *(name for _, name, _ in NOTED[len(names) :])])


def test_fewer_students_and_stages_are_trained_where_the_command_says_so() -> None:
    NOTED.clear()
    experiment = Noted(Path("out"), {"source": "idx", "image_size": 28}, students=("tm", "frozen"), stages=1)
    experiment.train_seed(1)
    assert [name for _, name, _ in NOTED] == ["s1_teacher", "s1_tm", "s1_frozen"]
    assert experiment.list_models() == ["teacher", "tm", "frozen", "tm_removed"]
    assert "fold" not in NOTED[0][2]["data"]


def test_a_run_that_was_begun_with_other_settings_is_not_taken_for_its_own(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "s1_tm.json").write_text('{"epoch": 4}\n')
    with pytest.raises(UserError, match="s1_tm: was begun with other settings"):
        demo.Experiment(tmp_path, {}).train(1, "s1_tm", {"epoch": 8})


def test_the_page_has_every_model_and_difference_with_its_interval() -> None:
    ends = {"low": 0.9, "high": 0.96, "by_seed": [0.92, 0.94]}
    gap = {"difference": 0.02, "low": 0.01, "high": 0.03, "by_seed": [0.02, 0.02]}
    model = {"title": "TM-ViT", "accuracy": 0.93, "parameters": 123_728, "macs": 2_500_000, "dead": 0.0, **ends}
    page = demo.write_page(
        {"models": {"tm": model}, "differences": {"tm - plain": gap}}, demo.Experiment(Path("x"), {})
    )
    assert "| TM-ViT | 93.0 [90.0, 96.0] | 92.0 94.0 | 123,728 | 2.50 | 0 |" in page
    assert "+2.0 [+1.0, +3.0] | +2.0 +2.0 |" in page


def test_a_model_whose_machines_are_taken_out_is_one_without_feed_forward() -> None:
    torch.manual_seed(0)
    keys: dict[str, Any] = {"patch_size": 14, "clauses": 8}
    model, plain = UnifiedTMTransformer(**keys).eval(), UnifiedTMTransformer(backend="none", **keys).eval()
    image = torch.rand(2, 1, 28, 28)
    before = model(image)["logits"]
    model.remove_machines()
    plain.load_state_dict(model.state_dict(), strict=False)
    assert not torch.allclose(model(image)["logits"], before)
    assert torch.equal(model(image)["logits"], plain(image)["logits"])


def test_an_unknown_student_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        demo.main(["--students", "tm,cnn"])
    assert "cnn" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        demo.main(["--image-size", "30"])
    assert "a multiple of 4, got 30" in capsys.readouterr().err


@pytest.mark.slow
def test_the_experiment_trains_all_its_arms_and_writes_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    words = ["--source", "drawn", "--seeds", "1", "--epochs", "1", "--teacher-epochs", "1", "--out", str(tmp_path)]
    demo.main([*words, "--students", "tm,plain"])
    models = json.loads((tmp_path / "results.json").read_text())["models"]
    assert {"teacher", "tm_distilled", "tm_sam", "tm_alone_removed", "plain_alone"} <= models.keys()
    assert "TM-ViT distilled, as many further steps minus TM-ViT alone" in capsys.readouterr().out
