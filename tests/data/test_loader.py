"""Batches: the same bytes for any number of workers, substitutes for unreadable samples, no global random states."""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_samples import Crashing, MadeSamples, collate_pictures
from sharpstudent.core.errors import TrainingStopped, UserError
from sharpstudent.core.types import Batch, Sample
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.data.loader import (
    BatchMaker,
    LoadedBatch,
    collate,
    load_batches,
    pictures_to_tensor,
)
from sharpstudent.data.sampler import SampleKey, TrainSampler


def load(
    source: MadeSamples, *, workers: int = 0, epoch: int = 1, start: int = 0, batch_size: int = 3
) -> list[LoadedBatch]:
    order = TrainSampler(len(source), batch_size, 2, seed=5)
    keys = order.batches(epoch, start_step=start)
    return list(load_batches(source, keys, seed=5, num_workers=workers, collate=collate_pictures))


def to_bytes(loaded: list[LoadedBatch]) -> list[object]:
    return [
        (
            b.batch.inputs["image"].numpy().tobytes(),
            b.batch.targets["label"].tolist(),
            b.batch.rows["mask"].numpy().tobytes(),
            {name: values for name, values in b.batch.rows.items() if name != "mask"},
            b.replaced,
        )
        for b in loaded
    ]


# --- Collating ------------------------------------------------------------------------------------------------------


def test_a_batch_keeps_the_order_of_the_samples_and_everything_stays_together() -> None:
    (first, *_) = load(MadeSamples(9))
    batch = first.batch
    keys = next(iter(TrainSampler(9, 3, 2, seed=5).batches(1)))
    assert batch.rows["id"] == tuple(f"{key.index}#{place}" for key in keys for place in range(2))
    assert batch.rows["key"] == tuple((key.index, key.visit, place) for key in keys for place in range(2))
    assert batch.targets["label"].tolist() == [0, 1, 0, 1, 0, 1]
    assert batch.rows["sample"] == (0, 0, 1, 1, 2, 2)
    assert batch.targets["label"].dtype == torch.int64
    assert len(batch) == 6
    columns = (batch.rows[name] for name in ("id", "clip", "group", "mask"))
    for image, label, name, clip, person, mask in zip(
        batch.inputs["image"], batch.targets["label"], *columns, strict=True
    ):
        index = int(name.split("#")[0])
        assert (clip, person) == (f"clip {index}", f"person {index}")
        assert (image[0] * 255).round().unique().tolist() == [index]
        assert (image[1] * 255).round().unique().tolist() == [int(label)]
        assert torch.equal(mask, torch.full((4, 4), index / 100))


def test_pictures_become_float32_rgb_in_0_to_1_channels_first_and_contiguous() -> None:
    image = np.zeros((1, 5, 5, 3), np.uint8)
    image[0, 2, 3] = (255, 51, 0)
    sample = Sample({"image": image}, {"label": np.array([1])}, rows={"id": ("a",)})
    batch = collate([sample], ["person"])
    assert (batch.inputs["image"].dtype, batch.inputs["image"].shape) == (torch.uint8, (1, 5, 5, 3))
    pictures = pictures_to_tensor(batch.inputs["image"])
    assert pictures.dtype == torch.float32
    assert pictures.shape == (1, 3, 5, 5)
    assert pictures.is_contiguous()
    assert pictures[0, :, 2, 3].tolist() == [1.0, pytest.approx(0.2), 0.0]
    assert (pictures.min(), pictures.max()) == (0.0, 1.0)
    assert "mask" not in batch.rows


def make_batch(source: MadeSamples, *indices: int) -> Batch:
    return BatchMaker(source, seed=0)([SampleKey(1, index, visit=7) for index in indices]).batch


def test_samples_of_different_sizes_make_one_batch_and_say_whose_each_row_is() -> None:
    batch = make_batch(MadeSamples(4, sizes=(2, 1, 3)), 3, 1, 2, 1)
    assert batch.rows["id"] == ("3#0", "3#1", "1#0", "2#0", "2#1", "2#2", "1#0")
    assert batch.targets["label"].tolist() == [0, 1, 0, 0, 1, 1, 0]
    assert batch.rows["sample"] == (0, 0, 1, 2, 2, 2, 3)  # a sample that is there twice is two
    assert all(len(column) == len(batch) == 7 for column in batch.rows.values())
    assert batch.rows["clip"] == tuple(f"clip {name[0]}" for name in batch.rows["id"])
    assert batch.rows["group"] == tuple(f"person {name[0]}" for name in batch.rows["id"])
    assert batch.rows["key"] == ((3, 7, 0), (3, 7, 1), (1, 7, 0), (2, 7, 0), (2, 7, 1), (2, 7, 2), (1, 7, 0))


def test_a_substitutes_key_tells_what_was_read_and_not_what_was_wanted() -> None:
    for loaded in load(MadeSamples(8, broken=(2, 5))):
        indices = [int(name.split("#")[0]) for name in loaded.batch.rows["id"]]
        assert [key[0] for key in loaded.batch.rows["key"]] == indices


def test_a_sample_without_rows_takes_no_place_in_a_batch_but_keeps_its_number() -> None:
    batch = make_batch(MadeSamples(3, sizes=(1, 0, 2)), 2, 1, 0)
    assert batch.rows["id"] == ("2#0", "2#1", "0#0")
    assert batch.rows["sample"] == (0, 0, 2)
    assert batch.rows["key"] == ((2, 7, 0), (2, 7, 1), (0, 7, 0))


def test_rows_that_name_groups_of_their_own_keep_them() -> None:
    def make(name: str, **rows: tuple[str, ...]) -> Sample:
        return Sample({"x": np.zeros((2, 1), np.float32)}, rows={"id": (f"{name}#0", f"{name}#1"), **rows})

    batch = collate([make("a"), make("b", group=("left", "right")), make("c")], ["A", "B", "C"])
    assert batch.rows["group"] == ("A", "A", "left", "right", "C", "C")


def test_a_weight_that_only_some_samples_have_is_1_for_the_others() -> None:
    def make(name: str, **weights: list[float]) -> Sample:
        found = {key: np.array(value, np.float32) for key, value in weights.items()}
        return Sample({"x": np.zeros((2, 1), np.float32)}, weights=found, rows={"id": (f"{name}#0", f"{name}#1")})

    batch = collate([make("a"), make("b", gaze=[0, 0.5])], ["A", "B"])
    assert batch.weights["gaze"].tolist() == [1, 1, 0, 0.5]
    assert batch.weights["gaze"].dtype == torch.float32


@pytest.mark.parametrize("field", ["inputs", "targets"])
def test_samples_that_do_not_have_the_same_fields_are_refused_with_their_names(field: str) -> None:
    sample = MadeSamples(1).make(0, np.random.default_rng(0))
    other = replace(sample, **{field: {**getattr(sample, field), "more": np.zeros((2, 1), np.float32)}})
    with pytest.raises(ValueError, match=f"the same {field}, got .*more"):
        collate([sample, other], ["a", "b"])


# --- Inputs that several rows share ---------------------------------------------------------------------------------


def make_scene(name: str, values: list[float], index: list[int]) -> Sample:
    """A sample whose rows read pictures (i, 1) that they share."""
    return Sample(
        inputs={"image": np.array(values, np.float32)[:, None], "place": np.array(index)},
        rows={"id": tuple(f"{name}#{row}" for row in range(len(index)))},
        shared={"image": "place"},
    )


SCENES = [make_scene("a", [10, 11], [1, 0, 1]), make_scene("b", [20], [0]), make_scene("c", [30, 31], [1, 1])]


def read_shared(batch: Batch) -> list[float]:
    """What each row reads of the shared pictures."""
    return batch.inputs["image"][batch.inputs[batch.shared["image"]], 0].tolist()


def test_shared_inputs_are_numbered_anew_across_samples() -> None:
    batch = collate(SCENES, ["A", "B", "C"])
    assert batch.inputs["image"][:, 0].tolist() == [10, 11, 20, 30, 31]
    assert batch.inputs["place"].tolist() == [1, 0, 1, 2, 4, 4]
    assert batch.inputs["place"].dtype == torch.int64
    assert read_shared(batch) == [11, 10, 11, 20, 31, 31]
    assert (len(batch), batch.rows["sample"], batch.rows["group"]) == (6, (0, 0, 0, 1, 2, 2), tuple("AAABCC"))


def test_a_part_of_a_batch_keeps_the_shared_inputs_that_its_rows_read_and_no_other() -> None:
    batch = collate(SCENES, ["A", "B", "C"])
    part = batch[3:]
    assert part.inputs["image"][:, 0].tolist() == [20, 31]  # nobody reads 30
    assert part.inputs["place"].tolist() == [0, 1, 1]
    assert read_shared(part) == [20, 31, 31]
    assert [read_shared(part) for part in batch.split(3)] == [[11, 10, 11], [20], [31, 31]]
    assert [read_shared(part) for part in batch.split(2)] == [[11, 10, 11, 20], [31, 31]]


# --- Parts of a batch -----------------------------------------------------------------------------------------------


def test_a_slice_of_a_batch_keeps_what_is_known_of_its_rows() -> None:
    batch = load(MadeSamples(9))[0].batch
    part = batch[2:5]
    assert (len(part), part.rows["sample"], part.rows["id"]) == (3, (1, 1, 2), batch.rows["id"][2:5])
    assert torch.equal(part.rows["mask"], batch.rows["mask"][2:5])
    assert part.targets["label"].tolist() == batch.targets["label"].tolist()[2:5]
    without = replace(batch, rows={name: values for name, values in batch.rows.items() if name != "sample"})
    assert "sample" not in without[2:5].rows
    assert batch.to(torch.device("cpu")).rows["sample"] == batch.rows["sample"]


def test_a_batch_is_split_between_samples() -> None:
    batch = make_batch(MadeSamples(4, sizes=(2, 1, 3)), 3, 1, 2, 0)  # of 2, 1, 3 and 2 rows
    assert [part.rows["id"] for part in batch.split(2)] == [batch.rows["id"][:3], batch.rows["id"][3:]]
    assert [len(part) for part in batch.split(3)] == [3, 3, 2]
    assert [len(part) for part in batch.split(9)] == [2, 1, 3, 2]
    assert batch.split(1)[0] is batch


# --- The same bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(workers: int) -> None:
    source = MadeSamples(10, broken=(3,))
    assert to_bytes(load(source, workers=workers)) == to_bytes(load(source))


def test_batches_are_the_same_when_an_epoch_is_taken_up_in_its_middle_with_other_workers() -> None:
    source = MadeSamples(10, broken=(3,))
    assert to_bytes(load(source, start=3, workers=2)) == to_bytes(load(source))[3:]


def test_each_visit_and_each_epoch_draws_afresh() -> None:
    drawn = set()
    count = 0
    for epoch in (1, 2):
        for loaded in load(MadeSamples(6), epoch=epoch):
            for image, name in zip(loaded.batch.inputs["image"], loaded.batch.rows["id"], strict=True):
                drawn.add((name, image[2].numpy().tobytes()))
                count += 1
    assert count == len(drawn) == 2 * 2 * 6 * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_does_not_touch_the_global_random_states(workers: int) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    load(MadeSamples(6), workers=workers)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tobytes() == numpy_before


def test_the_global_random_states_do_not_reach_the_samples() -> None:
    torch.manual_seed(1)
    first = to_bytes(load(MadeSamples(6)))
    torch.manual_seed(2)
    assert to_bytes(load(MadeSamples(6))) == first


# --- What cannot be read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_sample_is_replaced_by_a_readable_one_and_reported_with_the_reason(workers: int) -> None:
    loaded = load(MadeSamples(8, broken=(2, 5)), workers=workers)
    replaced = [r for batch in loaded for r in batch.replaced]
    assert {(r.path, r.reason) for r in replaced} == {(f"photos/{i}.jpg", "is empty (0 bytes)") for i in (2, 5)}
    assert all(len(batch.batch) == 6 for batch in loaded)
    indices = {name.split("#")[0] for batch in loaded for name in batch.batch.rows["id"]}
    assert not indices & {"2", "5"}
    assert all(batch.batch.rows["sample"] == (0, 0, 1, 1, 2, 2) for batch in loaded)


def test_the_substitute_depends_on_the_key_of_the_sample_alone() -> None:
    """Not on its place in a batch, nor on what was read before."""
    source = MadeSamples(30, broken=(2, 3))
    keys = [SampleKey(epoch, 2) for epoch in range(1, 5)]
    fresh = [BatchMaker(source, seed=5).make(key, []) for key in keys]
    used = BatchMaker(source, seed=5)
    again = [used.make(key, []) for key in reversed(keys)][::-1]
    for (_, one), (_, other) in zip(fresh, again, strict=True):
        assert one.inputs["image"].tobytes() == other.inputs["image"].tobytes()
    assert len({index for index, _ in fresh}) > 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_beyond_saving_is_the_users_error_also_from_a_worker(workers: int) -> None:
    with pytest.raises(UserError) as caught:
        load(MadeSamples(5, broken=range(5)), workers=workers)
    text = caught.value.as_text()
    assert "photos/" in text
    assert "could not be read" in text
    assert "is empty (0 bytes)" in text
    assert "remedy" in text


@pytest.mark.parametrize("workers", [0, 1])
def test_what_make_raises_names_the_sample_and_the_place_also_from_a_worker(workers: int) -> None:
    with pytest.raises(UserError, match=r"sample photos/\d\.jpg: .* raised ZeroDivisionError") as caught:
        load(Crashing(4, dies=False), workers=workers)
    assert re.search(r"a defect\n +.*made_samples\.py, line \d+, in make", caught.value.as_text())


def test_a_worker_that_dies_is_noticed() -> None:
    with pytest.raises(TrainingStopped, match=r"a loader process died .*(exited unexpectedly|killed).*num_workers=0"):
        load(Crashing(4, dies=True), workers=1)


def test_no_worker_is_left_behind_when_the_caller_stops_in_the_middle() -> None:
    before = len(multiprocessing.active_children())
    order = TrainSampler(20, 2, 1, 0)
    batches = load_batches(MadeSamples(20), order.batches(1), seed=0, num_workers=2)
    next(batches)
    batches.close()
    assert len(multiprocessing.active_children()) == before


def test_the_reason_crosses_process_borders() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(UnreadableSample("a.jpg", "is cut off")))
    assert (error.path, error.reason, str(error)) == ("a.jpg", "is cut off", "a.jpg: is cut off")


def test_workers_start_also_where_opencv_has_threads_of_its_own() -> None:
    """A fork copies the locks of OpenCV's pool without its threads: workers hung for ever, once in a few epochs."""
    program = Path(__file__).with_name("forking_loader.py")
    done = subprocess.run([sys.executable, str(program)], timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
