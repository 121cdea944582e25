"""LAST-E: its sizes, its adjacencies, and the identity that its attention starts at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sharpstudent.task import ModelSpec, UserError
from sharpstudent.tasks.skeleton.graph import SKELETONS
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
    with pytest.raises(UserError, match="is no option of LAST-E"):
        NTU60.build_student(ModelSpec("last_e_nano", {"width": 2}))
