"""Scores over views of a face: what the views show, what their average is, and which thresholds hold for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_faces import draw_face
from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Batch, Sample
from sharpstudent.deploy.familiar import FeatureStatistics
from sharpstudent.evaluation.command_line import COMPARE, EVALUATE, ModelRequest
from sharpstudent.evaluation.load_model import OpenedClassifier
from sharpstudent.evaluation.renderer import Session, load_renderer
from sharpstudent.evaluation.run import note_equal_weights
from sharpstudent.evaluation.tables import compute_tables
from sharpstudent.modalities.faces.crop import MARGIN_SHARE, compute_box_margins, expand_box
from sharpstudent.modalities.faces.sample import make_single
from sharpstudent.modalities.faces.views import VIEWS, list_views, make_views
from sharpstudent.models.vision import Classifier, build_classifier
from sharpstudent.tasks.deepfake.evaluation.calibration import (
    KEY,
    choose_calibrations,
    find_stored,
    read_calibration,
    store_calibrations,
)
from sharpstudent.tasks.deepfake.evaluation.command_line import FaceRequest, parse_request
from sharpstudent.tasks.deepfake.evaluation.datasets import check_request, open_sets
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import FaceInput
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
from sharpstudent.tasks.deepfake.evaluation.set_request import SetRequest
from sharpstudent.tasks.deepfake.samples import LabelledFaces, ViewedFaces
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from torch import Tensor, nn

FRAME = draw_face(1, 240)[0]
BOX = np.array([70.0, 60.0, 170.0, 190.0])
EVERY = "flip+crops"
CPU = torch.device("cpu")
SIDE, SMALL = 32, "test_resnet"  # of timm, 0.4 M parameters


def build() -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build_classifier(SMALL, classes=2, dropout=0.3).eval()


def make_pictures(count: int) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))


def save_model(path: Path) -> Path:
    about = {"architecture": SMALL, "classes": ["real", "fake"], "dropout": 0.3, "image_size": SIDE}
    save_checkpoint(path, {"model": build().state_dict()}, about=about)
    return path


def make_overconfident(temperature: float) -> ScoredFrames:
    """Margins that are `temperature` times those whose sigmoid the labels were drawn from."""
    rng = np.random.default_rng(0)
    true = rng.normal(0.0, 2.0, 400)
    names = [f"frame {i}" for i in range(400)]
    labels = (rng.random(400) < 1 / (1 + np.exp(-true))).astype(np.int64)
    return ScoredFrames(temperature * true, labels, names, names, names, ["own"] * 400, ["swap"] * 400)


@pytest.mark.parametrize("box", [None, BOX])
@pytest.mark.parametrize("name", VIEWS)
def test_the_first_view_is_the_plain_crop_to_the_last_bit_and_the_next_its_mirror_image(
    name: str, box: np.ndarray | None
) -> None:
    plain = make_single(FRAME, box, np.random.default_rng(0), 64, train=False)
    views = make_views(FRAME, box, 64, list_views(name))
    np.testing.assert_array_equal(views[0], plain)
    assert len(views) == {"flip": 2, "crops": 3, EVERY: 6}[name]
    assert len({view.tobytes() for view in views}) == len(views)
    if "flip" in name:
        np.testing.assert_array_equal(views[1::2], views[::2, :, ::-1])


def test_without_a_name_there_is_the_plain_crop_alone() -> None:
    (view,) = make_views(FRAME, BOX, 64, list_views(None))
    np.testing.assert_array_equal(view, make_single(FRAME, BOX, np.random.default_rng(0), 64, train=False))


def test_crops_have_margins_of_an_eighth_a_twentieth_and_a_fifth_of_the_box() -> None:
    views = make_views(FRAME, BOX, 64, list_views("crops"))
    for view, share in zip(views, (0.125, 0.05, 0.2), strict=True):
        left, top, right, bottom = expand_box(BOX, np.full(4, share), *FRAME.shape[:2])
        part = FRAME[top:bottom, left:right]
        np.testing.assert_array_equal(view, make_single(part, None, np.random.default_rng(0), 64, train=False))
    assert MARGIN_SHARE * 0.5 == 0.125


def test_a_ready_crop_is_seen_whole_and_from_slightly_nearer() -> None:
    """Around a ready crop there is nothing more: the wide crop of a frame is none of it."""
    left, top, right, bottom = compute_box_margins(BOX, *FRAME.shape[:2], None)
    ready = np.ascontiguousarray(FRAME[top:bottom, left:right])
    whole, near, _ = make_views(ready, None, 64, list_views("crops"))
    of_frame = make_views(FRAME, BOX, 64, list_views("crops"))
    np.testing.assert_array_equal(whole, of_frame[0])
    gap = np.abs(near.astype(int) - of_frame[1].astype(int))  # the same part, up to a pixel at its edges
    assert np.median(gap) <= 3


class Symmetric(nn.Module):
    """A model that left and right are equal to, to the last bit."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        both = image + image.flip(-1)
        return {"logits": torch.stack([both.amax((1, 2, 3)), both.amin((1, 2, 3))], 1)}


def test_the_average_of_a_symmetric_model_under_flip_is_its_plain_score() -> None:
    model = OpenedClassifier(Symmetric())
    plain = make_pictures(4)
    views = torch.stack([plain, plain.flip(-1)], 1)
    assert torch.equal(model(image=views)["logits"], model(image=plain)["logits"])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_score_of_views_is_the_mean_of_the_logits_of_each(order: tuple[int, int]) -> None:
    """So that log-odds are averaged: a temperature divides them to the same before and after."""
    model = OpenedClassifier(build(), order=order)
    views = torch.stack([make_pictures(3), make_pictures(3).flip(-1), make_pictures(3) * 0.5], 1)
    each = torch.stack([model(image=one)["logits"] for one in views.unbind(1)], 1)
    found = model(image=views)["logits"]
    torch.testing.assert_close(found, each.mean(1), rtol=0, atol=1e-6)
    margins = (each / 2.5).mean(1)
    torch.testing.assert_close(found / 2.5, margins, rtol=0, atol=1e-6)


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """A folder of face crops, three real and two fake."""
    import cv2

    for number in range(5):
        folder = tmp_path / "set" / ("real" if number < 3 else "fake")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), draw_face(10 + number, 120)[0])
    return tmp_path / "set"


def test_a_set_gives_views_to_a_model_that_takes_them_and_plain_crops_to_any_other(crops: Path) -> None:
    (found,) = open_sets([SetRequest(crops, crops=True, image_size=SIDE)], say=lambda _: None)
    plain, viewed = found.open(SIDE), found.open(FaceInput(SIDE, "crops"))
    assert type(plain) is LabelledFaces
    assert type(viewed) is ViewedFaces
    model = OpenedClassifier(build())
    options: dict[str, Any] = {"batch_size": 2, "num_workers": 0, "device": CPU}
    (table,), _ = compute_tables([model], viewed, found.task, **options)
    (of_plain,), _ = compute_tables([model], plain, found.task, **options)
    assert table["id"].tolist() == of_plain["id"].tolist()
    pictures = np.concatenate([viewed.make(index, np.random.default_rng(0)).inputs["image"] for index in range(5)])
    tensors = torch.from_numpy(pictures).permute(0, 1, 4, 2, 3).float() / 255
    by_hand = torch.stack([model(image=one)["logits"] for one in tensors.unbind(1)]).mean(0)
    np.testing.assert_allclose(table["logits"], by_hand.numpy(), rtol=0, atol=1e-6)
    assert not np.allclose(table["logits"], of_plain["logits"], atol=1e-4)


def open_viewed(path: Path, views: str | None) -> Any:
    return load_renderer(DeepfakeTask).open_model(ModelRequest(path, options={"views": views}), CPU)


def test_a_threshold_holds_for_the_views_that_it_was_chosen_with(tmp_path: Path) -> None:
    path = save_model(tmp_path / "model.pth")
    plain, flipped = open_viewed(path, None), open_viewed(path, "flip")
    for opened, temperature in ((plain, 2.0), (flipped, 3.0)):
        views = opened.input_key.views if isinstance(opened.input_key, FaceInput) else None
        chosen = choose_calibrations([make_overconfident(temperature)], named="own", fprs=(), views=[views])
        assert ("in the views flip" in chosen[0].fitted_on) == (views is not None)
        store_calibrations([opened], chosen, lambda _: None)
    plain, flipped, cropped = (open_viewed(path, views) for views in (None, "flip", "crops"))
    found = [read_calibration(opened) for opened in (plain, flipped)]
    assert [one and round(one.temperature) for one in found] == [2, 3]
    assert read_calibration(cropped) is None
    about = load_checkpoint(path).about
    assert find_stored(about, None) == about[KEY]


def test_weights_with_and_without_views_are_two_models_and_a_cost_counts_every_view(tmp_path: Path) -> None:
    from sharpstudent.evaluation.cost import count_macs

    plain, flipped, again = (open_viewed(save_model(tmp_path / "model.pth"), views) for views in (None, "flip", "flip"))
    noted = note_equal_weights([plain, flipped, replace(again, name="again")])
    assert [any("named twice" in note for note in one.notes) for one in noted] == [False, False, True]
    macs = [count_macs(one.model, one.example(1, CPU)) for one in (plain, flipped)]
    assert macs[1] == 2 * macs[0]
    assert any("mean log-odds over 2 views" in note for note in flipped.notes)


def test_each_model_may_have_views_of_its_own() -> None:
    words = ["A=a.pth", "B=b.pth", "--views", "B=flip", "--data", "set"]
    first, second = parse_request(words, script=COMPARE).models
    assert (first.options["views"], second.options["views"]) == (None, "flip")
    (one,) = parse_request(["a.pth"], script=EVALUATE).models
    assert one.options["views"] is None
    with pytest.raises(UserError, match=r"--views.*such as --views flip") as raised:
        parse_request(["a.pth", "--views", "mirror"], script=EVALUATE)
    assert "mirror" in str(raised.value)


@pytest.mark.parametrize(
    ("more", "words"), [({}, "makes its validation data itself"), ({"robustness": ()}, "corrupted faces")]
)
def test_views_of_pictures_that_are_made_in_one_form_only_are_refused(
    tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    from sharpstudent.evaluation.command_line import DataRequest

    flipped = open_viewed(save_model(tmp_path / "model.pth"), "flip")
    data = (DataRequest(tmp_path),) if more else ()
    request = FaceRequest((ModelRequest(flipped.path),), data=data, **more)
    with pytest.raises(UserError, match=words) as raised:
        check_request(Session(request, CPU, (flipped,)))
    assert "remedy" in str(raised.value)


def test_what_is_unlike_the_material_is_told_by_the_first_view() -> None:
    features = torch.arange(6 * 2 * 4, dtype=torch.float32).reshape(6, 2, 2, 2)
    batch = Batch({"image": torch.zeros(3, 2, 3, 4, 4)}, rows={"id": ("a", "b", "c")})
    statistics = FeatureStatistics(("late",))
    found = statistics.measure({"features/late": features}, batch)
    np.testing.assert_array_equal(found, statistics.measure({"features/late": features[::2]}, batch))


def test_views_become_tensors_as_plain_pictures_do() -> None:
    views = make_views(FRAME, BOX, 32, list_views(EVERY))
    task = DeepfakeTask()
    rows = {"id": ("a",), "clip": ("a",)}
    whole = task.collate([Sample({"image": views[None]}, rows=rows)], [""]).inputs["image"]
    each = [task.collate([Sample({"image": view[None]}, rows=rows)], [""]).inputs["image"] for view in views]
    assert torch.equal(whole[0], torch.cat(each))
