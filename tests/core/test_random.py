"""Randomness: a sample's draws depend on its key alone, and a run's states come back exactly."""

import random as python_random
from pathlib import Path

import numpy as np
import pytest
import torch
from sharpstudent.core.random import STREAMS, build_generator, capture_rng_state, restore_rng_state, seed_everything

KEY = (5, 3, 17)


def draw(seed: int, epoch: int, index: int, stream: str = "sample", *, count: int = 64) -> list[int]:
    return build_generator(seed, epoch, index, stream).integers(0, 2**63, size=count).tolist()


def draw_globally() -> list[float]:
    return [python_random.random(), *torch.rand(3).tolist(), *torch.randperm(5).tolist()]


def test_the_same_key_gives_the_same_draws_whatever_was_drawn_before() -> None:
    first = draw(*KEY)
    draw(5, 3, 18)
    np.random.random(10)
    assert draw(*KEY) == first


@pytest.mark.parametrize("other", [(6, 3, 17), (5, 4, 17), (5, 3, 18), (5, 17, 3), (3, 5, 17), (0, 0, 0)], ids=str)
def test_another_seed_epoch_or_index_gives_draws_that_share_nothing(other: tuple[int, int, int]) -> None:
    assert not set(draw(*KEY)) & set(draw(*other))


@pytest.mark.parametrize("stream", sorted(set(STREAMS) - {"sample"}))
def test_another_stream_of_the_same_key_shares_nothing(stream: str) -> None:
    assert not set(draw(*KEY)) & set(draw(*KEY, stream))


def test_thousands_of_keys_in_every_stream_never_overlap() -> None:
    # 64-bit draws: among 54 000 of them a chance collision has a probability of about 1e-10.
    keys = [(s, e, i, stream) for s in range(3) for e in range(3) for i in range(200) for stream in STREAMS]
    drawn = [value for key in keys for value in draw(*key, count=10)]
    assert len(set(drawn)) == len(drawn)


def test_a_long_draw_does_not_run_into_the_next_index() -> None:
    assert not set(draw(5, 3, 0, count=20_000)) & set(draw(5, 3, 1, count=20_000))


def test_neighbouring_keys_are_uncorrelated_and_uniform() -> None:
    uniform = np.stack([build_generator(5, 1, index).random(500) for index in range(200)])
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert np.corrcoef(uniform[:-1].ravel(), uniform[1:].ravel())[0, 1] == pytest.approx(0.0, abs=0.015)
    first_draws = uniform[:, 0]
    assert first_draws.std() == pytest.approx(12**-0.5, abs=0.04)


def test_the_draws_are_pinned_so_that_old_runs_can_be_repeated() -> None:
    assert draw(5, 3, 17, count=2) == [3938037521308501119, 7664858302101275337]


def test_numbers_of_numpy_serve_as_keys() -> None:
    as_numpy = build_generator(int(np.int64(5)), np.int64(3), np.int64(17))  # type: ignore[arg-type]
    assert as_numpy.integers(0, 2**63, size=64).tolist() == draw(*KEY)


def test_large_seeds_are_different_seeds() -> None:
    assert draw(2**32 - 1, 1, 1) != draw(2**31 - 1, 1, 1)
    assert draw(2**64, 1, 1) != draw(0, 1, 1)


@pytest.mark.parametrize("key", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)], ids=str)
def test_negative_keys_are_refused(key: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be >= 0"):
        build_generator(*key)


def test_global_states_are_neither_read_nor_moved_by_a_generator() -> None:
    seed_everything(1)
    expected = draw_globally()
    seed_everything(1)
    draw(*KEY)
    assert draw_globally() == expected


def test_seeding_makes_the_global_draws_repeat() -> None:
    seed_everything(7)
    first = [*draw_globally(), np.random.random()]
    seed_everything(7)
    assert [*draw_globally(), np.random.random()] == first
    seed_everything(8)
    assert [*draw_globally(), np.random.random()] != first


def test_a_captured_state_comes_back_exactly() -> None:
    seed_everything(7)
    draw_globally()
    python_random.gauss(0, 1)  # leaves half a pair behind, which is part of the state
    state = capture_rng_state()
    expected = [python_random.gauss(0, 1), *draw_globally()]
    restore_rng_state(state)
    assert [python_random.gauss(0, 1), *draw_globally()] == expected


def test_a_capture_is_a_copy_and_moves_nothing() -> None:
    seed_everything(7)
    expected = draw_globally()
    seed_everything(7)
    state = capture_rng_state()
    saved = state["torch"].clone()
    assert draw_globally() == expected
    assert torch.equal(state["torch"], saved)


def test_a_state_survives_a_checkpoint_that_is_read_with_weights_only(tmp_path: Path) -> None:
    seed_everything(7)
    state = capture_rng_state()
    expected = draw_globally()
    torch.save({"rng": state}, tmp_path / "last.pth")
    seed_everything(99)
    restore_rng_state(torch.load(tmp_path / "last.pth", weights_only=True)["rng"])
    assert draw_globally() == expected


def test_dropout_draws_the_same_masks_after_a_restore() -> None:
    seed_everything(7)
    dropout, ones = torch.nn.Dropout(0.5), torch.ones(100)
    state = capture_rng_state()
    first = dropout(ones)
    assert not torch.equal(dropout(ones), first)
    restore_rng_state(state)
    assert torch.equal(dropout(ones), first)
