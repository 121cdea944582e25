import random

import numpy as np
import pytest
from sharpstudent.modalities.faces import augment
from sharpstudent.modalities.faces.augment import augment_pair, color_shift_source


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(60, 190, (40, 48, 3), dtype=np.uint8)


def test_equal_images_stay_equal_because_the_parameters_are_shared(image):
    for seed in range(300):
        real, fake = augment_pair(image, image.copy(), np.random.default_rng(seed))
        np.testing.assert_array_equal(real, fake)


def augment_one(image, rng):
    return augment_pair(image, image, rng)[0]


@pytest.mark.parametrize("apply", [augment_one, color_shift_source])
def test_the_same_generator_state_gives_the_same_bytes_and_another_seed_others(apply, image):
    first = [apply(image, np.random.default_rng(seed)) for seed in range(20)]
    for seed in reversed(range(20)):  # another order: no state is carried from call to call
        np.testing.assert_array_equal(apply(image, np.random.default_rng(seed)), first[seed])
    assert len({array.tobytes() for array in first}) > 10
    assert all(array.dtype == np.uint8 and array.shape == image.shape for array in first)


def test_successive_draws_of_one_generator_differ(image):
    rng = np.random.default_rng(0)
    assert len({color_shift_source(image, rng).tobytes() for _ in range(20)}) == 20


def test_the_given_images_and_the_global_generators_are_left_alone(image):
    before = image.copy()
    numpy_state, python_state = np.random.get_state(), random.getstate()
    for seed in range(30):
        augment_pair(image, image, np.random.default_rng(seed))
        color_shift_source(image, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)
    assert random.getstate() == python_state
    for now, then in zip(np.random.get_state(), numpy_state, strict=True):
        np.testing.assert_array_equal(now, then)


def test_each_shared_step_is_applied_about_as_often_as_its_probability_and_independently(image):
    pipeline, count = augment._PIPELINES.shared, 1500
    applied = np.zeros((count, 4), bool)
    rng = np.random.default_rng(7)
    small = image[:16, :16].copy()
    for row in range(count):
        augment_pair(small, small, rng)
        applied[row] = [bool(transform.params) for transform in pipeline.transforms]
    # Four standard deviations of a share at 1500 draws are 0.052.
    np.testing.assert_allclose(applied.mean(axis=0), [0.3, 0.3, 0.3, 0.5], atol=0.052)
    assert np.abs(np.corrcoef(applied.T) - np.eye(4)).max() < 0.11


def test_jpeg_quality_and_color_limits_are_those_of_the_contract():
    flat = np.full((16, 16, 3), 128, np.uint8)
    pipeline, rng = augment._PIPELINES.shared, np.random.default_rng(1)
    shifts, hsv, factors, qualities = [], [], [], []
    for _ in range(600):
        augment_pair(flat, flat, rng)
        rgb, color, contrast, jpeg = (transform.params for transform in pipeline.transforms)
        shifts += [np.abs(rgb["noise_map"]).max()] if rgb else []
        hsv += [abs(color[key]) for key in ("hue_shift", "sat_shift", "val_shift")] if color else []
        factors += [abs(contrast["alpha"] - 1)] if contrast else []
        qualities += [jpeg["quality"]] if jpeg else []
    assert 18 < max(shifts) <= 20
    assert 0.28 < max(hsv) <= 0.3
    assert 0.28 < max(factors) <= 0.3
    assert 40 <= min(qualities) < 45
    assert 95 < max(qualities) <= 100


def test_resolution_is_lost_half_of_the_time_by_two_or_by_four(image):
    rng, factors = np.random.default_rng(2), []
    choice = augment._PIPELINES.color_shift.transforms[-1]
    for _ in range(600):
        for transform in choice.transforms:
            transform.params = {}
        color_shift_source(image[:16, :16].copy(), rng)
        used = [transform.params for transform in choice.transforms]
        assert sum(map(bool, used)) == 1
        factors.append(used[0].get("scale") or used[1].get("scale") or 1)
    np.testing.assert_allclose([np.mean(np.equal(factors, f)) for f in (0.5, 0.25, 1)], [0.25, 0.25, 0.5], atol=0.08)


def test_a_tiny_image_passes_through(image):
    assert color_shift_source(image[:3, :5].copy(), np.random.default_rng(0)).shape == (3, 5, 3)
    assert augment_pair(image[:1, :1].copy(), image[:1, :1].copy(), np.random.default_rng(0))[0].shape == (1, 1, 3)


def test_importing_opens_no_network_connection():
    import subprocess
    import sys

    code = (
        "import os, socket; os.environ.pop('NO_ALBUMENTATIONS_UPDATE', None)\n"
        "def refuse(*a, **k): raise SystemExit('a connection was opened')\n"
        "socket.getaddrinfo = socket.create_connection = refuse\n"
        "import sharpstudent.modalities.faces.augment\n"
    )
    root = augment.__file__.split("lib/sharpstudent")[0]
    done = subprocess.run([sys.executable, "-W", "error::UserWarning:albumentations", "-c", code], cwd=root)
    assert done.returncode == 0
