"""Batches: the same bytes for any number of workers, stand-ins for what cannot be read, no draw from global states."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_items import Crashing, MadeItems
from sharpstudent.core.errors import TrainingStopped, UserError
from sharpstudent.data.dataset import Item, UnreadableItem
from sharpstudent.data.loader import KeyedItems, LoadedBatch, collate, load_batches
from sharpstudent.data.sampler import ItemKey, TrainOrder


def load(
    source: MadeItems, *, workers: int = 0, epoch: int = 1, start: int = 0, batch_size: int = 3
) -> list[LoadedBatch]:
    order = TrainOrder(len(source), batch_size, 2, seed=5)
    return list(load_batches(source, order.batches(epoch, start_step=start), seed=5, num_workers=workers))


def to_bytes(loaded: list[LoadedBatch]) -> list[object]:
    return [
        (b.batch.inputs.numpy().tobytes(), b.batch.labels.tolist(), b.batch.sample_ids, b.batch.items, b.replaced)
        for b in loaded
    ]


# --- Collating ------------------------------------------------------------------------------------------------------


def test_a_batch_keeps_the_order_of_the_items_and_everything_stays_together() -> None:
    (first, *_) = load(MadeItems(9))
    batch = first.batch
    keys = next(iter(TrainOrder(9, 3, 2, seed=5).batches(1)))
    assert batch.sample_ids == tuple(f"{key.index}#{place}" for key in keys for place in range(2))
    assert batch.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert batch.items == (0, 0, 1, 1, 2, 2)
    assert batch.labels.dtype == torch.int64
    assert len(batch) == 6
    for image, label, sample, clip, person, mask in zip(
        batch.inputs, batch.labels, batch.sample_ids, batch.clip_ids, batch.identities, batch.masks, strict=True
    ):
        index = int(sample.split("#")[0])
        assert (clip, person) == (f"clip {index}", f"person {index}")
        assert (image[0] * 255).round().unique().tolist() == [index]
        assert (image[1] * 255).round().unique().tolist() == [int(label)]
        assert torch.equal(mask, torch.full((4, 4), index / 100))


def test_inputs_are_float32_rgb_in_0_to_1_channels_first_and_contiguous() -> None:
    image = np.zeros((1, 5, 5, 3), np.uint8)
    image[0, 2, 3] = (255, 51, 0)
    batch = collate([(Item(image, (1,), ("a",), "clip", "person"), ())]).batch
    assert batch.inputs.dtype == torch.float32
    assert batch.inputs.shape == (1, 3, 5, 5)
    assert batch.inputs.is_contiguous()
    assert batch.inputs[0, :, 2, 3].tolist() == [1.0, pytest.approx(0.2), 0.0]
    assert (batch.inputs.min(), batch.inputs.max()) == (0.0, 1.0)
    assert batch.masks is None


def test_items_of_different_sizes_make_one_batch_and_say_whose_each_row_is() -> None:
    source = MadeItems(4, sizes=(2, 1, 3))
    items = [(source.make(index, np.random.default_rng(0)), ()) for index in (3, 1, 2, 1)]
    batch = collate(items).batch
    assert batch.sample_ids == ("3#0", "3#1", "1#0", "2#0", "2#1", "2#2", "1#0")
    assert batch.labels.tolist() == [0, 1, 0, 0, 1, 1, 0]
    assert batch.items == (0, 0, 1, 2, 2, 2, 3)  # an item that is there twice is two
    assert len(batch.clip_ids) == len(batch.identities) == len(batch) == 7
    assert batch.clip_ids == tuple(f"clip {name[0]}" for name in batch.sample_ids)


def test_a_slice_of_a_batch_keeps_what_is_known_of_its_rows() -> None:
    batch = load(MadeItems(9))[0].batch
    part = batch[2:5]
    assert (len(part), part.items, part.sample_ids) == (3, (1, 1, 2), batch.sample_ids[2:5])
    assert replace(batch, items=())[2:5].items == ()
    assert batch.to(torch.device("cpu")).items == batch.items


# --- The same bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(workers: int) -> None:
    source = MadeItems(10, broken=(3,))
    assert to_bytes(load(source, workers=workers)) == to_bytes(load(source))


def test_batches_are_the_same_when_an_epoch_is_taken_up_in_its_middle_with_other_workers() -> None:
    source = MadeItems(10, broken=(3,))
    assert to_bytes(load(source, start=3, workers=2)) == to_bytes(load(source))[3:]


def test_each_visit_and_each_epoch_draws_afresh() -> None:
    drawn = set()
    count = 0
    for epoch in (1, 2):
        for loaded in load(MadeItems(6), epoch=epoch):
            for image, name in zip(loaded.batch.inputs, loaded.batch.sample_ids, strict=True):
                drawn.add((name, image[2].numpy().tobytes()))
                count += 1
    assert count == len(drawn) == 2 * 2 * 6 * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_does_not_touch_the_global_random_states(workers: int) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    load(MadeItems(6), workers=workers)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tobytes() == numpy_before


def test_the_global_random_states_do_not_reach_the_items() -> None:
    torch.manual_seed(1)
    first = to_bytes(load(MadeItems(6)))
    torch.manual_seed(2)
    assert to_bytes(load(MadeItems(6))) == first


# --- What cannot be read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_item_is_replaced_by_a_readable_one_and_reported_with_the_reason(workers: int) -> None:
    loaded = load(MadeItems(8, broken=(2, 5)), workers=workers)
    replaced = [r for batch in loaded for r in batch.replaced]
    assert {(r.path, r.reason) for r in replaced} == {(f"photos/{i}.jpg", "is empty (0 bytes)") for i in (2, 5)}
    assert all(len(batch.batch) == 6 for batch in loaded)
    indices = {name.split("#")[0] for batch in loaded for name in batch.batch.sample_ids}
    assert not indices & {"2", "5"}
    assert all(batch.batch.items == (0, 0, 1, 1, 2, 2) for batch in loaded)


def test_the_stand_in_depends_on_the_items_key_alone() -> None:
    """Not on its place in a batch, nor on what was read before."""
    source = MadeItems(30, broken=(2, 3))
    keys = [ItemKey(epoch, 2) for epoch in range(1, 5)]
    fresh = [KeyedItems(source, seed=5)[key] for key in keys]
    used = KeyedItems(source, seed=5)
    again = [used[key] for key in reversed(keys)][::-1]
    for one, other in zip(fresh, again, strict=True):
        assert not isinstance(one, UserError)
        assert not isinstance(other, UserError)
        assert one[0].images.tobytes() == other[0].images.tobytes()
    assert len({item[0].clip_id for item in fresh if not isinstance(item, UserError)}) > 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_beyond_saving_is_the_users_error_also_from_a_worker(workers: int) -> None:
    with pytest.raises(UserError) as caught:
        load(MadeItems(5, broken=range(5)), workers=workers)
    text = caught.value.as_text()
    assert "photos/" in text
    assert "could not be read" in text
    assert "is empty (0 bytes)" in text
    assert "remedy" in text


def test_a_defect_of_ours_keeps_its_name_also_from_a_worker() -> None:
    for workers in (0, 1):
        with pytest.raises(ZeroDivisionError, match="a defect"):
            load(Crashing(4, dies=False), workers=workers)


def test_a_worker_that_dies_is_noticed() -> None:
    with pytest.raises(TrainingStopped, match=r"a loader process died .*(exited unexpectedly|killed).*num_workers=0"):
        load(Crashing(4, dies=True), workers=1)


def test_no_worker_is_left_behind_when_the_caller_stops_in_the_middle() -> None:
    before = len(multiprocessing.active_children())
    order = TrainOrder(20, 2, 1, 0)
    batches = load_batches(MadeItems(20), order.batches(1), seed=0, num_workers=2)
    next(batches)
    batches.close()
    assert len(multiprocessing.active_children()) == before


def test_the_reason_crosses_process_borders() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(UnreadableItem("a.jpg", "is cut off")))
    assert (error.path, error.reason, str(error)) == ("a.jpg", "is cut off", "a.jpg: is cut off")


def test_workers_start_also_where_opencv_has_threads_of_its_own() -> None:
    """A fork copies the locks of OpenCV's pool without its threads: workers hung for ever, once in a few epochs."""
    program = Path(__file__).with_name("forking_loader.py")
    done = subprocess.run([sys.executable, str(program)], timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
