"""Robustness curves: what is measured on which faces, the same for any number of loader processes."""

import sys

import numpy as np
import pytest
import torch
from drawn_faces import draw_face
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Outputs
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.evaluation.tables import compute_tables
from sharpstudent.modalities.faces.corruptions import CORRUPTIONS, blur, corrupt, explain_no_h264, find_evaluation_crop
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import LabelledFaceSet, make_unscored
from sharpstudent.tasks.deepfake.evaluation.frames import MAX
from sharpstudent.tasks.deepfake.evaluation.robustness import (
    CorruptedFaces,
    choose_corruptions,
    choose_faces,
    chunk_models,
    compute_area,
    list_variants,
    measure_robustness,
)
from sharpstudent.tasks.deepfake.evaluation.set_metrics import compute_set_metrics
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.sources.face import Face, LoadedFace
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from torch import nn

SIZE = 32
BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}
QUICK = ("jpeg", "blur", "noise", "crop_jitter")


class Sharpness(nn.Module):
    """Calls fake what is blurred: scores fall with the size of the Laplacian."""

    def __init__(self, factor: float = 60.0) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 1, 3, bias=False)
        kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
        self.convolution.weight.data = kernel.expand(1, 3, 3, 3).clone() / 3
        self.factor = factor

    def forward(self, image: torch.Tensor) -> Outputs:
        detail = self.convolution(image).abs().mean(dim=(1, 2, 3))
        return {"logits": torch.stack([self.factor * detail, torch.zeros_like(detail)], dim=1)}


def make_face(number, *, boxes=True, unreadable=False):
    """Odd ones are fakes, a little blurred."""
    name = f"face {number}"

    def load():
        if unreadable:
            raise UnreadableSample(name, "is empty (0 bytes)")
        image, landmarks = draw_face(number, 80)
        if number % 2:
            image = blur(image, 0.012 + 0.001 * (number % 5))
        box = np.concatenate([landmarks[:68].min(axis=0), landmarks[:68].max(axis=0)])
        return LoadedFace(image, boxes=box[None] if boxes else None)

    return Face(name, f"clip {number // 4}", f"person {number // 4}", number % 2, load)


def make_set(numbers=16, *, name="drawn", broken=(), boxes=True):
    """So many faces, or those of these numbers."""
    numbers = range(numbers) if isinstance(numbers, int) else numbers
    faces = [make_face(i, unreadable=i in broken, boxes=boxes) for i in numbers]
    frames = make_unscored(
        name,
        [face.name for face in faces],
        [face.clip_id for face in faces],
        [face.identity for face in faces],
        ["drawn" if face.label else "" for face in faces],
        np.array([face.label for face in faces]),
    )
    return LabelledFaceSet(
        name,
        faces,
        frames,
        np.arange(len(faces)),
        MAX,
        kind="crops",
        split=None,
        fingerprint="",
        faces_rule="",
        name_faces=lambda: [face.name for face in faces],
    )


def measure(sets, *, models=None, lines=None, **choices):
    chosen = {"image_size": SIZE, "num_workers": 0, "device": torch.device("cpu"), "names": QUICK} | choices
    said = [] if lines is None else lines
    return measure_robustness(models or [("sharpness", Sharpness())], sets, say=said.append, **chosen)


def test_every_curve_begins_with_the_auc_of_the_clean_set():
    face_set, model = make_set(), Sharpness()
    for faces in (face_set, make_set(boxes=False)):
        (table,), _ = compute_tables(
            [model], faces.open(SIZE), DeepfakeTask(), batch_size=3, num_workers=0, device=torch.device("cpu")
        )
        plain = compute_set_metrics(faces.build_frames(compute_margins(table), {}), aggregations=()).values["frame_auc"]
        curves = measure([faces], models=[("sharpness", model)])["sharpness"]
        assert [curve.name for curve in curves] == list(QUICK)
        for curve in curves:
            assert curve.points[0].auc.value == plain
            assert curve.points[0].label == "none"
            assert [point.strength for point in curve.points] == list(BY_NAME[curve.name].severities)
    assert 0.5 < plain <= 1


def test_the_clean_pixels_are_those_of_validation_and_each_variant_is_its_corruption():
    faces = make_set().faces
    variants = list_variants([BY_NAME[name] for name in QUICK])
    assert len(variants) == 1 + sum(len(BY_NAME[name].severities) - 1 for name in QUICK)
    source = CorruptedFaces(faces, [2, 5], variants, image_size=SIZE, seed=4)
    sample = source.make(1, np.random.default_rng(0))
    plain = make_set().open(SIZE).make(5, np.random.default_rng(1)).inputs["image"][0]
    np.testing.assert_array_equal(sample.inputs["image"][0], plain)
    loaded = faces[5].load()
    crop = find_evaluation_crop(loaded.image, loaded.boxes[0])
    for variant, image in zip(variants, sample.inputs["image"], strict=True):
        picture = corrupt(crop, variant.corruption, variant.level, seed=4, index=5)
        whole = CorruptedFaces(
            [Face("", "", "", 0, lambda p=picture: LoadedFace(p))], [0], variants[:1], image_size=SIZE, seed=0
        )
        np.testing.assert_array_equal(image, whole.make(0, np.random.default_rng(0)).inputs["image"][0])


def test_no_and_two_loader_processes_give_the_same_curves():
    sets = [make_set(10), make_set(6, name="more")]
    alone, together = (measure(sets, num_workers=workers)["sharpness"] for workers in (0, 2))
    assert alone == together  # equal to the last bit, intervals too


def test_models_get_the_same_curves_together_as_each_alone():
    sets, models = [make_set()], [("one", Sharpness()), ("other", Sharpness(-60.0))]
    both = measure(sets, models=models)
    assert list(both) == ["one", "other"]
    for named in models:
        assert measure(sets, models=[named])[named[0]] == both[named[0]]
    for one, other in zip(both["one"], both["other"], strict=True):
        assert one.area + other.area == pytest.approx(1, abs=1e-12)


def test_each_of_several_sets_has_the_curves_that_it_has_alone():
    sets = [make_set(name="blends"), make_set(range(16, 40), name="swaps")]
    together = measure(sets)["sharpness"]
    alone = [curve for one in sets for curve in measure([one])["sharpness"]]
    assert [curve.name for curve in together] == [f"{name}@{one.name}" for one in sets for name in QUICK]
    assert [curve.points for curve in together] == [curve.points for curve in alone]


def test_a_curve_does_not_depend_on_the_other_corruptions():
    sets = [make_set()]
    assert measure(sets, names=("noise",))["sharpness"][0] == measure(sets)["sharpness"][2]


def test_the_area_is_the_mean_height_by_the_trapezoid_rule():
    assert compute_area([0.9, 0.9, 0.9]) == pytest.approx(0.9, abs=1e-15)
    assert compute_area([1.0, 0.5]) == 0.75
    assert compute_area([1.0, 0.8, 0.7, 0.5, 0.4]) == pytest.approx((0.5 * 1.0 + 0.8 + 0.7 + 0.5 + 0.5 * 0.4) / 4)
    for curve in measure([make_set()])["sharpness"]:
        assert curve.area == compute_area([point.auc.value for point in curve.points])


def test_blur_lowers_the_auc_of_a_model_that_relies_on_sharpness():
    (curve,) = measure([make_set(24)], names=("blur",))["sharpness"]
    assert curve.points[0].auc.value > 0.9
    assert curve.area < curve.points[0].auc.value
    for point in curve.points:
        assert point.auc.low <= point.auc.value <= point.auc.high


def test_faces_that_cannot_be_read_are_undecided_and_counted():
    said = []
    broken = measure([make_set(16, broken=(3, 8))], lines=said)["sharpness"]
    assert any("2 faces could not be read and have no decision" in line for line in said)
    kept = make_set([i for i in range(16) if i not in (3, 8)])
    for curve, point_names in zip(broken, QUICK, strict=True):
        assert curve.name == point_names
    # Without randomness the curve is that of the set without them; numbers of faces, and so keys, move otherwise.
    assert broken[0] == measure([kept])["sharpness"][0]


def test_a_choice_of_faces_is_balanced_deterministic_and_reported():
    labels = [np.array([0] * 50 + [1] * 10), np.array([1] * 40)]
    said = []
    chosen = choose_faces(labels, 30, seed=3, say=said.append)
    taken = np.concatenate([of_set[numbers] for of_set, numbers in zip(labels, chosen, strict=True)])
    assert len(taken) == 30
    assert (taken == 0).sum() == (taken == 1).sum() == 15
    assert all((np.diff(numbers) > 0).all() for numbers in chosen)
    assert said == ["robustness: 30 of 100 faces, drawn with seed 3: 15 of 50 real, 15 of 50 fake"]
    again = choose_faces(labels, 30, seed=3, say=said.append)
    assert [numbers.tolist() for numbers in again] == [numbers.tolist() for numbers in chosen]
    other = choose_faces(labels, 30, seed=4, say=said.append)
    assert [numbers.tolist() for numbers in other] != [numbers.tolist() for numbers in chosen]


@pytest.mark.parametrize(("reals", "fakes", "most", "expected"), [(3, 90, 20, 3), (90, 4, 21, 17), (50, 50, 21, 11)])
def test_a_rare_class_is_used_entirely_and_the_other_fills_up(reals, fakes, most, expected):
    labels = np.array([0] * reals + [1] * fakes)
    (chosen,) = choose_faces([labels], most, seed=0, say=lambda _: None)
    assert len(chosen) == most
    assert (labels[chosen] == 0).sum() == expected


def test_a_set_within_the_limit_is_used_entirely_without_a_message():
    said = []
    (chosen,) = choose_faces([np.array([0, 1, 1])], 3, seed=0, say=said.append)
    assert chosen.tolist() == [0, 1, 2]
    assert said == []
    with pytest.raises(UserError, match="2 faces or more"):
        choose_faces([np.array([0, 1, 1])], 1, seed=0, say=said.append)


def test_chosen_faces_are_corrupted_as_in_the_whole_set():
    face_set = make_set(20)
    (numbers,) = choose_faces([face_set.labels], 8, seed=0, say=lambda _: None)
    variants = list_variants([BY_NAME["noise"]])
    few = CorruptedFaces(face_set.faces, numbers.tolist(), variants, image_size=SIZE, seed=0)
    every = CorruptedFaces(face_set.faces, range(20), variants, image_size=SIZE, seed=0)
    rng = np.random.default_rng(0)
    for place, number in enumerate(numbers.tolist()):
        np.testing.assert_array_equal(few.make(place, rng).inputs["image"], every.make(number, rng).inputs["image"])
    curves = measure([face_set, make_set(6, name="more")], most_faces=8, names=("jpeg",))["sharpness"]
    assert all(point.auc.value is not None for point in curves[0].points)


def test_faces_in_several_chunks_give_the_same_curves(monkeypatch):
    whole = measure([make_set(11)])
    monkeypatch.setattr("sharpstudent.tasks.deepfake.evaluation.robustness.CHUNK", 3)
    assert measure([make_set(11)]) == whole


def test_without_the_video_package_h264_is_left_out_with_a_note(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    said = []
    left = choose_corruptions(None, said.append)
    assert [d.name for d in left] == [d.name for d in CORRUPTIONS if d.name != "h264"]
    assert len(said) == 1
    assert "h264 is left out" in said[0]
    assert "pip install" in said[0]
    with pytest.raises(UserError, match="pip install"):
        choose_corruptions(["h264"], said.append)


def test_h264_is_a_curve_like_the_others():
    pytest.importorskip("av", reason="H.264 needs the extra `video`")
    if explain_no_h264() is not None:
        pytest.skip(explain_no_h264() or "")
    (curve,) = measure([make_set(8)], names=("h264",))["sharpness"]
    assert [point.label for point in curve.points] == ["none", "CRF 23", "CRF 28", "CRF 35", "CRF 40"]


def test_an_unknown_corruption_is_refused_with_the_known_names():
    with pytest.raises(UserError, match="fog") as caught:
        choose_corruptions(["jpeg", "fog"], lambda _: None)
    assert all(name in str(caught.value) for name in BY_NAME)


def test_one_class_has_no_auc_and_no_area_and_a_note_says_why():
    for curve in measure([make_set([0, 2, 4])])["sharpness"]:
        assert curve.area is None
        for point in curve.points:
            assert point.auc.value is None
            assert "one class only" in point.auc.note
            assert "face 0" in point.auc.note


def test_a_model_keeps_its_mode_and_its_weights_their_layout():
    model = Sharpness().train()
    before = model.convolution.weight.stride()
    measure([make_set(4)], models=[("sharpness", model)], names=("jpeg",))
    assert model.training
    assert model.convolution.weight.stride() == before
    assert model.convolution.weight.is_contiguous()


def test_pictures_in_parts_give_the_same_logits_as_all_together():
    torch.manual_seed(0)
    model, images = Sharpness(), torch.rand(7, 3, 224, 224)
    with chunk_models([model], image_size=224, device=torch.device("cpu")) as (parts,), torch.inference_mode():
        torch.testing.assert_close(parts(images)["logits"], model(images)["logits"], rtol=1e-5, atol=1e-5)
