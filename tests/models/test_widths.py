"""Widths of an architecture: the largest that is lighter than a teacher, counted without building weights."""

from __future__ import annotations

import time

import pytest
import torch
from sharpstudent.models.forward import count_parameters
from sharpstudent.models.vision import build_classifier
from sharpstudent.models.widths import Lighter, find_lighter_width, is_clearly_less, list_widths
from torch.utils.flop_counter import FlopCounterMode

B4_PARAMETERS, B4_MACS = 17_552_202, 4_390_000_000  # EfficientNet-B4 with two outputs at 380 px


def test_the_families_of_the_default_student_and_of_the_demos() -> None:
    widths = ("050", "075", "100", "125", "150", "175", "200")
    assert list_widths("mobilevitv2_200") == [f"mobilevitv2_{width}" for width in widths]
    assert list_widths("tf_efficientnet_lite2") == [f"tf_efficientnet_lite{index}" for index in range(5)]


@pytest.mark.parametrize("name", ["mobilevit_s", "efficientnet-b4", "no_such_model_100"])
def test_a_name_without_widths_has_none(name: str) -> None:
    assert list_widths(name) == []
    assert find_lighter_width(name, side=64, below_parameters=10**12, below_macs=10**15) is None


def test_the_default_student_is_not_lighter_than_its_teacher_and_the_width_that_is_has_a_name() -> None:
    list_widths("mobilevitv2_200")  # imports timm, which takes longer than the search
    start = time.process_time()
    found = find_lighter_width("mobilevitv2_200", side=380, below_parameters=B4_PARAMETERS, below_macs=B4_MACS)
    assert time.process_time() - start < 10  # of the processor's time: others may share it
    assert found is not None
    assert found.name == "mobilevitv2_100"  # _125 has fewer parameters than B4 too, but more multiply-accumulates
    assert found.parameters < B4_PARAMETERS
    assert found.macs < B4_MACS


def test_both_numbers_must_be_below() -> None:
    def find(parameters: int, macs: int) -> str | None:
        found = find_lighter_width("mobilevitv2_100", side=64, below_parameters=parameters, below_macs=macs)
        return None if found is None else found.name

    smallest = find_lighter_width("mobilevitv2_100", side=64, below_parameters=1_300_000, below_macs=10**12)
    assert smallest is not None
    assert smallest.name == "mobilevitv2_050"
    assert find(10**12, 10**15) == "mobilevitv2_200"
    assert find(smallest.parameters, 10**15) is None  # not below itself
    assert find(10**12, smallest.macs) is None
    assert find(10**12, 2 * smallest.macs) == "mobilevitv2_050"  # _075 takes 2.2 times as many


def test_counting_without_weights_equals_counting_a_built_model() -> None:
    found = find_lighter_width("tf_efficientnet_lite0", side=96, below_parameters=3_600_000, below_macs=10**15)
    model = build_classifier("tf_efficientnet_lite0", classes=2, dropout=None).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 96, 96))
    assert found == Lighter("tf_efficientnet_lite0", count_parameters(model), counter.get_total_flops() // 2)


def test_names_whose_number_is_a_picture_size_give_no_width() -> None:
    widths = list_widths("vit_base_patch16_224")
    assert "vit_base_patch16_384" in widths
    assert find_lighter_width("vit_base_patch16_224", side=96, below_parameters=10**12, below_macs=10**15) is None


def test_about_as_much_is_not_less() -> None:
    assert not is_clearly_less(17.43, 17.55)
    assert not is_clearly_less(96, 100)
    assert is_clearly_less(95, 100)
