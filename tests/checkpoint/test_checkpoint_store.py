"""Saving and loading one checkpoint: what comes back, and what is refused."""

import json
import os
import pickle
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sharpstudent.checkpoint.store import (
    copy_checkpoint,
    delete_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from sharpstudent.core.archive import DamagedCheckpointError, read_about
from sharpstudent.core.errors import UserError
from sharpstudent.models.weight_files import read_tensors

ABOUT = {"student": "mobilevitv2_050", "classes": ["real", "fake"], "epoch": 3, "val_auc": 0.8123, "note": "Zoë"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a.pth"
    generator = torch.Generator().manual_seed(0)
    tensors = {"model": {"w": torch.randn(20, 30, generator=generator), "n": torch.tensor(3)}}
    save_checkpoint(path, tensors, about=ABOUT)
    return path


def test_tensors_and_description_come_back_as_they_were(saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert torch.equal(loaded.tensors["model"]["w"], torch.randn(20, 30, generator=torch.Generator().manual_seed(0)))
    assert loaded.about == ABOUT
    assert loaded.notes == ()
    assert read_about(saved) == ABOUT


def test_the_json_beside_it_says_what_the_file_is(saved: Path) -> None:
    record = json.loads((saved.parent / "a.pth.json").read_text(encoding="utf-8"))
    assert record["bytes"] == saved.stat().st_size
    assert record["format"] == 1
    assert len(record["sha256"]) == 64
    assert record["about"] == ABOUT


def test_the_same_content_gives_the_same_bytes_whatever_the_name(saved: Path) -> None:
    other = saved.with_name("another_name.pth")
    save_checkpoint(other, load_checkpoint(saved).tensors, about=ABOUT)
    assert other.read_bytes() == saved.read_bytes()


def test_a_file_alone_is_complete(saved: Path) -> None:
    (saved.parent / "a.pth.json").unlink()
    assert load_checkpoint(saved).about == ABOUT
    assert read_about(saved) is None


def test_a_damaged_json_does_not_take_the_checkpoint_with_it(saved: Path) -> None:
    (saved.parent / "a.pth.json").write_text('{"sha256": ')
    assert load_checkpoint(saved).about == ABOUT


def test_a_plain_state_dict_of_others_loads_without_a_description(tmp_path: Path) -> None:
    torch.save({"net.w": torch.ones(2)}, tmp_path / "b.tar")
    loaded = load_checkpoint(tmp_path / "b.tar")
    assert list(loaded.tensors) == ["net.w"]
    assert loaded.about == {}


def test_random_states_and_optimiser_state_come_back(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.sum().backward()
    optimizer.step()
    tensors = {
        "optimizer": optimizer.state_dict(),
        "rng": {
            "python": random.Random(0).getstate(),
            "torch": torch.get_rng_state(),
            "numpy": np.random.default_rng(0).bit_generator.state,
        },
    }
    save_checkpoint(tmp_path / "a.pth", tensors, about={})
    loaded = load_checkpoint(tmp_path / "a.pth").tensors
    assert loaded["rng"]["python"] == tensors["rng"]["python"]
    assert loaded["rng"]["numpy"] == tensors["rng"]["numpy"]
    assert torch.equal(loaded["optimizer"]["state"][0]["momentum_buffer"], torch.ones(3))


def test_what_could_not_be_read_back_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with pytest.raises(ValueError, match=r"numpy\._core\.multiarray\.scalar"):
        save_checkpoint(path, {"auc": np.float64(0.5)}, about={})
    with pytest.raises(ValueError, match="pathlib"):
        save_checkpoint(path, {"where": Path("x")}, about={})
    with pytest.raises(ValueError, match="JSON compliant"):
        save_checkpoint(path, {}, about={"val_auc": float("nan")})
    with pytest.raises(ValueError, match="'about'"):
        save_checkpoint(path, {"about": 1}, about={})
    assert list(tmp_path.iterdir()) == []


def test_any_flipped_bit_is_recognised(saved: Path) -> None:
    whole, chance = saved.read_bytes(), random.Random(0)
    for _ in range(300):
        position, bit = chance.randrange(len(whole)), chance.randrange(8)
        saved.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
        with pytest.raises(DamagedCheckpointError, match="damaged"):
            load_checkpoint(saved)


def test_without_the_json_no_flipped_bit_changes_what_is_read(saved: Path) -> None:
    (saved.parent / "a.pth.json").unlink()
    whole, chance, refused = saved.read_bytes(), random.Random(0), 0
    expected = load_checkpoint(saved)
    for _ in range(300):
        position, bit = chance.randrange(len(whole)), chance.randrange(8)
        saved.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
        try:
            loaded = load_checkpoint(saved)
        except DamagedCheckpointError:
            refused += 1
            continue
        assert torch.equal(loaded.tensors["model"]["w"], expected.tensors["model"]["w"])
        assert loaded.about == expected.about
    assert refused > 200  # the rest fell on padding and dates of the archive


@pytest.mark.parametrize("with_json", [True, False])
def test_a_truncated_file_is_recognised_at_any_length(saved: Path, with_json: bool) -> None:
    if not with_json:
        (saved.parent / "a.pth.json").unlink()
    whole = saved.read_bytes()
    for length in [0, 1, 2, 100, len(whole) // 2, len(whole) - 23, len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(DamagedCheckpointError) as caught:
            load_checkpoint(saved)
        assert str(saved) in str(caught.value)
        assert "remedy" in str(caught.value)


def test_a_missing_file_a_folder_and_a_list_are_the_users_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(UserError, match="is a folder"):
        load_checkpoint(tmp_path)
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(UserError, match="is not a checkpoint") as caught:
        load_checkpoint(tmp_path / "list.pth")
    assert "got: list" in str(caught.value)


def test_text_named_like_a_checkpoint_is_called_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("see the other folder")
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path / "a.pth")


CALLS: dict[str, Callable[[Path], tuple[Callable[..., object], tuple[object, ...]]]] = {
    "os.system": lambda marker: (os.system, (f"touch '{marker}'",)),
    "os.mkdir": lambda marker: (os.mkdir, (str(marker),)),
    "builtins.exec": lambda marker: (exec, (f"open({str(marker)!r}, 'w')",)),
    "builtins.eval": lambda marker: (eval, (f"open({str(marker)!r}, 'w')",)),
    "builtins.open": lambda marker: (open, (str(marker), "w")),
    "subprocess.check_call": lambda marker: (subprocess.check_call, (["touch", str(marker)],)),
    "shutil.copyfile": lambda marker: (shutil.copyfile, (__file__, str(marker))),
    "torch.save": lambda marker: (torch.save, ([], str(marker))),
    "numpy.savetxt": lambda marker: (np.savetxt, (str(marker), [0.0])),
}


class Payload:
    """Unpickling it would create a file or a folder: the mark that code ran."""

    def __init__(self, marker: Path, function: str) -> None:
        self.marker, self.function = marker, function

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return CALLS[self.function](self.marker)


def write_zip(path: Path, content: object) -> None:
    torch.save(content, path)


def write_legacy(path: Path, content: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_raw(protocol: int) -> Callable[[Path, object], None]:
    return lambda path, content: path.write_bytes(pickle.dumps(content, protocol=protocol)) and None


FORMS = {"zip": write_zip, "legacy": write_legacy, **{f"raw{n}": write_raw(n) for n in (0, 2, 4, 5)}}


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize("form", FORMS)
def test_code_in_a_file_is_refused_and_does_not_run(form: str, function: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.pth", tmp_path / "it_ran"
    FORMS[form](path, {"model": {"w": torch.ones(2)}, "extra": Payload(marker, function)})
    for read in (load_checkpoint, read_tensors):
        with pytest.raises(UserError) as caught:
            read(path)
        assert not marker.exists()
        text = str(caught.value)
        assert "refused" in text
        assert "nothing in it was run" in text
        assert "weights_only" not in text  # torch's own message advises to switch the guard off


@pytest.mark.parametrize("function", CALLS)
def test_the_payloads_of_these_tests_do_run_where_they_are_let(function: str, tmp_path: Path) -> None:
    marker = tmp_path / "it_ran"
    pickle.loads(pickle.dumps(Payload(marker, function)))
    assert marker.exists()


def test_the_refusal_names_what_the_file_would_import(tmp_path: Path) -> None:
    torch.save({"model": Payload(tmp_path / "m", "os.system")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"it needs (posix|os|nt)\.system"):
        load_checkpoint(tmp_path / "evil.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole_model.pth")
    with pytest.raises(UserError, match=r"it needs torch\.nn\.modules\.linear\.Linear"):
        load_checkpoint(tmp_path / "whole_model.pth")


def test_a_copy_is_the_same_bytes_and_independent_of_later_saves(saved: Path) -> None:
    target, before = saved.with_name("best_model.pth"), saved.read_bytes()
    copy_checkpoint(saved, target)
    copy_checkpoint(saved, target)  # onto itself: the same file twice
    assert target.read_bytes() == before
    save_checkpoint(saved, {"model": {}}, about={"epoch": 4})
    assert target.read_bytes() == before
    assert load_checkpoint(target).about == ABOUT
    assert [path for path in saved.parent.iterdir() if path.name.startswith(".")] == []


def test_a_copy_works_where_the_disk_knows_no_hard_links(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refuse)
    copy_checkpoint(saved, saved.with_name("b.pth"))
    assert load_checkpoint(saved.with_name("b.pth")).about == ABOUT


def test_deleting_takes_the_json_along(saved: Path) -> None:
    delete_checkpoint(saved)
    assert list(saved.parent.iterdir()) == []
    delete_checkpoint(saved)
