"""The two scripts on generated trees: a teacher, a student alone, and the student distilled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gaze_trees import make_gazefollow, make_vat
from workplace import ROOT, Workplace

SMALL = {"name": "gazelle_test_vit", "dim": 32, "layers": 1, "input_size": 32}


def make_config(folder: Path, shipped: str, root: str) -> None:
    """The shipped config with small models, few steps, and the tree."""
    import json5

    config = json5.loads((ROOT / "configs" / shipped).read_text())
    config["data"] |= {"data_root": root, "image_size": 32, "validation_share": 0.4}
    config |= {
        "student": SMALL,
        "teacher": SMALL,
        "student_init": "random",
        "teacher_weights": "output/teacher_*/weights/best_model.pth",
        **{"epoch": 1, "batch_size": 2, "num_workers": 0, "device": "cpu", "report": False},
    }
    config["stage2"]["batch_size"] = 2
    (folder / f"{root}.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("shipped", "make"), [("gaze_gazefollow.json", make_gazefollow), ("gaze_vat.json", make_vat)])
def test_a_student_is_distilled_from_a_teacher_by_the_shipped_config(tmp_path: Path, shipped: str, make) -> None:
    place = Workplace(tmp_path)
    make(tmp_path / "tree")
    make_config(tmp_path, shipped, "tree")
    first = place.call(
        "train_student_only.py", "tree.json", "-n", "teacher", "--set", "student.name=gazelle_test_vit_inout"
    )
    assert first.code == 0, first.err
    second = place.call(
        *("main_distillation.py", "tree.json", "-n", "distilled", "--allow", "unpretrained-student"),
        *("--set", "pretrained_student_weights=null", "--set", "teacher.name=gazelle_test_vit_inout"),
    )
    assert second.code == 0, second.err
    assert "kd w=0.3 T=4.0" in second.out
    assert (place.find_run("distilled") / "weights" / "best_model.pth").is_file()


def test_a_missing_teacher_ends_with_exit_code_2(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    make_gazefollow(tmp_path / "tree")
    make_config(tmp_path, "gaze_gazefollow.json", "tree")
    ended = place.call(
        *("main_distillation.py", "tree.json", "-n", "distilled", "--allow", "unpretrained-student"),
        *("--set", "pretrained_student_weights=null", "--set", "teacher_weights=ckpts/none.pt"),
    )
    assert ended.code == 2
    assert "ckpts/none.pt" in ended.err


def test_a_block_of_the_head_learns_from_the_teachers_block(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    make_gazefollow(tmp_path / "tree")
    make_config(tmp_path, "gaze_gazefollow.json", "tree")
    assert place.call("train_student_only.py", "tree.json", "-n", "teacher", "--set", "student.dim=64").code == 0
    block = "head.transformer.0"
    between = {"term": "features", "student_layer": block, "teacher_layer": block}
    ended = place.call(
        *("main_distillation.py", "tree.json", "-n", "distilled", "--allow", "unpretrained-student"),
        *("--set", "pretrained_student_weights=null", "--set", "teacher.dim=64"),
        *("--set", f"stage2.terms={json.dumps([{'term': 'heatmap'}, between])}"),
    )
    assert ended.code == 0, ended.err
    assert "features w=1.0" in ended.out
