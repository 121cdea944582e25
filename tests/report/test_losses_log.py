"""The readable log: one line an epoch."""

from pathlib import Path

from sharpstudent.report.logs import LossesLog, format_epoch_line, format_schedules


def test_a_line_reads_as_promised() -> None:
    values = {"train loss": 0.61, "kd": None, "val_auc": 0.81234, "lr": 5e-5, "alpha": 0.95, "skipped": 0}
    line = format_epoch_line(3, 100, values, best=(3, 0.81234), new_best=True)
    assert line == (
        "Epoch 3/100 | train loss 0.6100 | val_auc 0.8123 | lr 5.00e-05 | alpha 0.9500 | skipped 0"
        " | best 0.8123 (epoch 3, new)"
    )
    assert format_epoch_line(4, 100, {}, best=(3, 0.81234)) == "Epoch 4/100 | best 0.8123 (epoch 3)"


def test_lines_are_on_the_disk_as_soon_as_they_are_written(tmp_path: Path) -> None:
    log = LossesLog(tmp_path / "logs" / "losses.logs")
    log.append("Epoch 1/3 | val_auc 0.5000")
    log.append("Epoch 2/3 | val_auc 0.6000\n")
    assert log.path.read_text() == "Epoch 1/3 | val_auc 0.5000\nEpoch 2/3 | val_auc 0.6000\n"


def test_a_resume_forgets_what_is_done_again_and_nothing_else(tmp_path: Path) -> None:
    log = LossesLog(tmp_path / "losses.logs")
    log.drop_from(1, 0)  # no file yet
    early, late = "# skipped epoch 3 step 4: the loss", "# skipped epoch 3 step 5: the loss"
    for line in ("Epoch 1/30 | a", "# resumed", "Epoch 2/30 | b", early, late, "Epoch 10/30 | c", "Epoch 10/30 | tor"):
        log.append(line)
    log.drop_from(3, 5)
    assert log.path.read_text().splitlines() == ["Epoch 1/30 | a", "# resumed", "Epoch 2/30 | b", early]


def test_the_weights_and_temperatures_of_the_terms_stand_in_the_line_term_by_term() -> None:
    numbers = {"hard/weight": 0.95, "kd/weight": 0.05, "kd/temperature": 3.0}
    assert format_schedules(numbers) == "hard w=0.95 kd w=0.05 T=3.0"
    assert format_epoch_line(2, 9, {"loss": 1.0}, schedules=numbers) == (
        "Epoch 2/9 | loss 1.0000 | hard w=0.95 kd w=0.05 T=3.0"
    )


def test_bytes_that_are_no_text_are_shown_and_lose_nothing(tmp_path: Path) -> None:
    log = LossesLog(tmp_path / "losses.logs")
    log.path.write_bytes(b"Epoch 1/3 | \xb5\x80 a\n# note \xff\nEpoch 2/3 | b\n")
    assert log.repair() == []
    log.drop_from(2, 0)
    assert log.path.read_text() == "Epoch 1/3 | \\xb5\\x80 a\n# note \\xff\n"


def test_a_log_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    log = LossesLog(tmp_path / "losses.logs")
    log.path.mkdir()
    assert log.repair() == [
        "losses.logs is a folder, not a file: it is kept as losses.logs.damaged, and a new one is begun"
    ]
    log.append("# hello")
    assert log.read() == ["# hello"]
