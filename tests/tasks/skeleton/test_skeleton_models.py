"""LAST-E: its sizes, its adjacencies, and the identity that its attention starts at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_motion import LAYOUT
from sharpstudent.models.forward import run_model
from sharpstudent.task import ModelSpec, UserError
from sharpstudent.tasks.skeleton.frame_convolution import FrameConvolution
from sharpstudent.tasks.skeleton.graph import SKELETONS, build_skeleton
from sharpstudent.tasks.skeleton.last_e import JointAttention
from sharpstudent.tasks.skeleton.section import SkeletonSection
from sharpstudent.tasks.skeleton.task import SkeletonTask

NTU60 = SkeletonTask(SkeletonSection(skeleton="ntu25", classes=tuple(map(str, range(60)))))


@pytest.mark.parametrize(
    ("name", "parameters"), [("nano", 92_358), ("small", 177_646), ("base", 363_958), ("large", 644_094)]
)
def test_each_size_has_its_number_of_parameters(name: str, parameters: int) -> None:
    model = NTU60.build_student(ModelSpec(f"last_e_{name}"))
    assert sum(one.numel() for one in model.parameters()) == parameters


def test_the_teacher_has_9_217_256_parameters() -> None:
    model = NTU60.build_teacher(ModelSpec("last_v2_base", role="teacher"))
    assert sum(one.numel() for one in model.parameters()) == 9_217_256


def test_the_teacher_is_the_mean_of_its_bodies_and_passes_an_absent_one_over_unless_told_otherwise() -> None:
    task = SkeletonTask(SkeletonSection(skeleton="coco17", classes=("a", "b"), frames=8, bodies=2))
    torch.manual_seed(0)
    model = task.build_teacher(ModelSpec("last_v2_base", role="teacher")).eval()
    one, other = ({name: torch.randn(1, 3, 8, 17) for name in ("joint", "velocity", "bone")} for _ in range(2))
    second = {f"second_{name}": value for name, value in other.items()}
    absent = {name: torch.zeros_like(value) for name, value in second.items()}
    with torch.no_grad():
        alone, beside, both = model(**one)["logits"], model(**other)["logits"], model(**one, **second)["logits"]
        torch.testing.assert_close(both, (alone + beside) / 2.0)
        torch.testing.assert_close(model(**one, **absent)["logits"], alone)
        model.mask_empty = False
        nobody = model(**{name: torch.zeros_like(value) for name, value in one.items()})["logits"]
        torch.testing.assert_close(model(**one, **absent)["logits"], (alone + nobody) / 2.0)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("frames", [8, 15])
def test_the_fast_form_of_the_convolution_equals_torchs_own_with_its_gradients(
    frames: int, stride: int, dilation: int
) -> None:
    torch.manual_seed(0)
    convolution = FrameConvolution(4, stride, dilation).double()
    features = torch.randn(2, 4, frames, 5, dtype=torch.double, requires_grad=True)
    fast, plain = convolution(features), torch.nn.Conv2d.forward(convolution, features)
    torch.testing.assert_close(fast, plain)
    weight = torch.randn_like(plain)
    gradients = [torch.autograd.grad((one * weight).sum(), [features, convolution.weight]) for one in (fast, plain)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_st_gcn_reads_the_joints_alone_and_is_of_similar_size() -> None:
    model = NTU60.build_student(ModelSpec("stgcnpp_16"))
    assert run_model(model, NTU60.example_batch(2).inputs)["logits"].shape == (2, 60)
    assert 92_358 < sum(one.numel() for one in model.parameters()) < 177_646


def test_the_truncated_partition_is_that_of_the_origin() -> None:
    found = build_skeleton("ntu25", "truncated").build_adjacencies()
    assert (found > 0).sum(axis=(1, 2)).tolist() == [25, 40, 8]


def test_a_checkpoint_keeps_a_layout_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(LAYOUT))
    section = SkeletonSection(skeleton=str(tmp_path / "mine.json"), classes=("a", "b"), frames=8)
    facts = json.loads(json.dumps(SkeletonTask(section).facts()))
    (tmp_path / "mine.json").unlink()
    assert SkeletonTask(None, facts).example_batch(1).inputs["joint"].shape == (1, 3, 8, 4)


def test_softer_targets_are_advised_for_a_distilled_student_that_underfits() -> None:
    rows = [{"val_accuracy": 0.1 * epoch, "kd/temperature": 4.0} for epoch in range(1, 6)]
    (advice,) = SkeletonTask.advise(rows)
    assert "--set temperature=6.0" in advice.remedy
    assert not SkeletonTask.advise([{**row, "kd/temperature": 6.0} for row in rows])
    assert not SkeletonTask.advise([{"val_accuracy": row["val_accuracy"]} for row in rows])
    assert not SkeletonTask.advise([{**row, "val_accuracy": 0.9} for row in rows])


def test_the_distance_partition_of_ntu_has_25_and_24_and_24_entries() -> None:
    found = SKELETONS["ntu25"].build_adjacencies()
    assert (found > 0).sum(axis=(1, 2)).tolist() == [25, 24, 24]


@pytest.mark.parametrize("name", SKELETONS)
def test_columns_of_an_adjacency_sum_to_one_or_are_empty_and_every_joint_is_reached(name: str) -> None:
    sums = SKELETONS[name].build_adjacencies().sum(axis=1)
    assert np.all(np.isclose(sums, 1.0) | (sums == 0.0))
    assert SKELETONS[name].find_hops().min() == 0


def test_attention_begins_as_the_identity() -> None:
    features = torch.randn(2, 8, 6, 5)
    torch.testing.assert_close(JointAttention(8)(features), features)


def test_a_batch_of_three_streams_gives_logits_of_every_class() -> None:
    batch = NTU60.example_batch(2)
    assert {name: tuple(one.shape) for name, one in batch.inputs.items()} == dict.fromkeys(
        ("joint", "velocity", "bone"), (2, 3, 32, 25)
    )
    assert NTU60.build_student(ModelSpec("last_e_nano"))(**batch.inputs)["logits"].shape == (2, 60)


def test_an_option_that_no_model_knows_is_refused() -> None:
    with pytest.raises(UserError, match="is no option of last_e_nano"):
        NTU60.build_student(ModelSpec("last_e_nano", {"width": 2}))
