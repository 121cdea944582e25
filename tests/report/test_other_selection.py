"""Console, metrics file and the guide where another metric than the AUC selects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharpstudent.report.logs import MetricsFile, format_epoch_line
from sharpstudent.tasks.deepfake.report.guide import describe_next_after_stage1, describe_next_after_stage2


def after_stage2(val_auc: float | None, stage1_auc: float | None, **others: Any) -> str:
    arguments = {"checkpoint": "b.pth", "settings": None, "bands": True, "selected": "val_eer 0.0812", **others}
    return "\n".join(describe_next_after_stage2(val_auc=val_auc, stage1_auc=stage1_auc, **arguments))


def test_the_best_value_is_named_with_its_metric_and_the_auc_beside_it() -> None:
    lines = describe_next_after_stage1(
        val_auc=0.91, checkpoint="b.pth", following=(), bands=False, selected="val_eer 0.0812"
    )
    assert lines[0] == "Stage 1 is done: best val_eer 0.0812 (validation AUC 0.9100), b.pth"


def test_bands_and_gain_speak_of_the_auc_and_never_of_the_error_rate() -> None:
    text = after_stage2(0.93, 0.91)
    assert "measured 0.9300, the guide expects 0.90-0.94: inside the band" in text
    assert "AUC against stage 1 (0.9100): +0.0200" in text
    assert "0.0812" in text.split("\n", 1)[0]
    assert "0.0812" not in text.split("\n", 1)[1]


def test_without_the_auc_there_are_neither_bands_nor_a_gain() -> None:
    text = after_stage2(None, 0.91)
    assert "band" not in text
    assert "the validation AUC of this epoch is not known" in text
    assert text.startswith("Stage 2 is done: best val_eer 0.0812, b.pth")
    lines = describe_next_after_stage1(
        val_auc=None, checkpoint="b", following=(), bands=True, selected="val_eer 0.0812"
    )
    assert "band" not in "\n".join(lines)
    assert "Before that" not in "\n".join(lines)


def test_the_best_of_an_epochs_line_has_its_metrics_name() -> None:
    line = format_epoch_line(2, 9, {"val_eer": 0.1}, best=(2, 0.1), new_best=True, best_name="best val_eer")
    assert line == "Epoch 2/9 | val_eer 0.1000 | best val_eer 0.1000 (epoch 2, new)"


def test_a_metrics_file_takes_further_columns_and_leaves_what_is_there(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m.csv")
    file.append({"epoch": 1, "val_auc": 1 / 3})
    file.widen({"epoch": 2, "val_auc": 0.5, "val_eer": 0.2})
    file.append({"epoch": 2, "val_auc": 0.5, "val_eer": 0.2})
    assert file.path.read_text() == "epoch,val_auc,val_eer\n1,0.3333333333333333,\n2,0.5,0.2\n"
    before = file.path.stat().st_mtime_ns
    file.widen(["epoch", "val_eer"])
    assert file.path.stat().st_mtime_ns == before
    MetricsFile(tmp_path / "absent.csv").widen(["epoch"])
    assert not (tmp_path / "absent.csv").exists()
