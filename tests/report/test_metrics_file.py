"""The metrics file: exact numbers, fixed columns, no epoch twice."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.report.logs import MetricsFile


def row(epoch: int, **others: object) -> dict[str, object]:
    return {"epoch": epoch, "train_loss": 1 / 3 + epoch, "val_auc": 0.8, **others}


def test_numbers_come_back_to_the_last_digit(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "logs" / "metrics.csv")
    values = {"epoch": 1, "a": 0.1 + 0.2, "b": 5e-324, "c": None, "d": float("inf"), "e": "ok, really", "f": -0.0}
    file.append(values)
    assert file.read() == [values]
    assert math.copysign(1, file.read()[0]["f"]) == -1  # type: ignore[arg-type]


def test_array_scalars_are_written_as_numbers(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m.csv")
    file.append({"epoch": np.int64(1), "auc": np.float64(0.5), "loss": torch.tensor(0.25)})
    assert file.path.read_text() == "epoch,auc,loss\n1,0.5,0.25\n"


def test_a_nan_is_written_as_such_and_read_as_such(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m.csv")
    file.append({"epoch": 1, "loss": float("nan")})
    assert file.path.read_text().endswith("1,nan\n")
    assert math.isnan(file.read()[0]["loss"])  # type: ignore[arg-type]


def test_columns_are_fixed_by_the_first_row_or_by_the_caller(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m.csv", columns=["epoch", "val_auc", "train_loss"])
    file.append(row(1))
    assert file.path.read_text().startswith("epoch,val_auc,train_loss\n1,0.8,1.3333333333333333\n")
    with pytest.raises(ValueError, match=r"missing \['val_auc'\], not among them \['new'\]"):
        MetricsFile(file.path).append({"epoch": 2, "train_loss": 1.0, "new": 1.0})
    with pytest.raises(ValueError, match="column `epoch`"):
        MetricsFile(tmp_path / "n.csv", columns=["val_auc"])


def test_drop_after_removes_the_epochs_that_will_be_done_again(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m.csv")
    assert file.drop_after(3) == 0  # no file yet
    for epoch in range(1, 13):
        file.append(row(epoch))
    before = file.read()
    assert MetricsFile(file.path).drop_after(9) == 3
    assert file.read() == before[:9]
    for epoch in range(10, 13):
        file.append(row(epoch))
    assert file.read() == before
    assert file.drop_after(0) == 12
    assert file.read() == []
    assert file.path.read_text() == "epoch,train_loss,val_auc\n"


def test_an_epoch_cannot_be_there_twice(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m.csv")
    file.append(row(1))
    with pytest.raises(ValueError, match="epoch 1 is there already"):
        MetricsFile(file.path).append(row(1))


def test_a_row_that_a_killed_writer_left_unfinished_is_forgotten(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m.csv")
    file.append(row(1))
    whole = file.path.read_text()
    file.path.write_text(whole + "2,2.33333")
    assert [r["epoch"] for r in file.read()] == [1]
    file.append(row(2))
    assert [r["epoch"] for r in file.read()] == [1, 2]
    file.path.write_text(whole + "2,2.33")
    file.drop_after(5)
    assert file.path.read_text() == whole


def test_damaged_rows_are_left_out_and_named(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m.csv")
    file.path.write_bytes(b"epoch,a\n1,2\n2,2,3\n3,\xb2\n4,2\n\xb1,2\nx,2\n\n6,\x00\r\n")
    assert [row["epoch"] for row in file.read()] == [1, 4]
    assert file.repair() == ["m.csv: left out damaged lines 3, 4, 6, 7, 8, 9"]
    assert file.path.read_text() == "epoch,a\n1,2\n4,2\n"
    assert file.repair() == []
    file.append({"epoch": 5, "a": 3})
    assert file.path.read_text().endswith("4,2\n5,3\n")


@pytest.mark.parametrize("content", [b"epocH,a\n1,2\n", b"epoch,\xff\n1,2\n", b"epoch,epoch\n1,2\n", None])
def test_a_file_that_is_no_table_is_set_aside_and_begun_anew(tmp_path: Path, content: bytes | None) -> None:
    file = MetricsFile(tmp_path / "m.csv")
    if content is None:
        file.path.mkdir()
    else:
        file.path.write_bytes(content)
    (note,) = file.repair()
    assert "it is kept as m.csv.damaged, and a new one is begun" in note
    file.append(row(1))
    assert [each["epoch"] for each in file.read()] == [1]
    assert (tmp_path / "m.csv.damaged").exists()


def test_a_foreign_table_that_is_only_read_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("name,a\nx,2\n")
    with pytest.raises(UserError, match="column `epoch`"):
        MetricsFile(tmp_path / "m.csv").read()


def test_a_file_that_a_spreadsheet_saved_is_read_as_before(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"epoch,a\r\n1,2\r\n")
    file = MetricsFile(tmp_path / "m.csv")
    assert file.repair() == []
    file.append({"epoch": 2, "a": 3})
    assert [each["epoch"] for each in file.read()] == [1, 2]


def test_a_name_that_is_a_formula_is_escaped_once_and_read_back(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.csv")
    for epoch in (1, 2, 3):
        metrics.append({"epoch": epoch, "=note": "+SUM(1)", "loss": -0.5})
    metrics.drop_after(2)
    assert (tmp_path / "metrics.csv").read_text() == "epoch,'=note,loss\n1,'+SUM(1),-0.5\n2,'+SUM(1),-0.5\n"
    assert metrics.read()[1] == {"epoch": 2, "=note": "+SUM(1)", "loss": -0.5}
