"""The two pictures of a run: one augmented batch, and the curves."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.report.curves import build_training, draw_curves
from sharpstudent.report.logs import MetricsFile
from sharpstudent.report.results import TrainingResult
from sharpstudent.tasks.deepfake.report.pictures import draw_batch

ROOT = Path(__file__).resolve().parents[2]
GREEN, BLUE = (10, 200, 30), (20, 40, 220)  # the reals and the fakes in these tests


def read_png(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return (imread(path)[:, :, :3] * 255).round().astype(np.uint8)


def centres_of(picture: np.ndarray, colour: tuple[int, ...]) -> tuple[float, int]:
    """Mean column and number of the pixels of one colour."""
    hits = np.argwhere((picture == np.array(colour)).all(-1))
    return (float(hits[:, 1].mean()) if len(hits) else float("nan")), len(hits)


def make_batch(pairs: int, *, fakes_first: bool = False) -> dict:
    pair, labels = [np.full((8, 8, 3), colour, np.uint8) for colour in (GREEN, BLUE)], [0, 1]
    if fakes_first:
        pair, labels = pair[::-1], labels[::-1]
    masks = np.ones((2 * pairs, 8, 8), np.float32)
    return {"images": np.stack(pair * pairs), "labels": labels * pairs, "ids": ["clip/1"] * (2 * pairs), "masks": masks}


@pytest.mark.parametrize("fakes_first", [False, True])
def test_a_pair_is_drawn_real_left_of_fake_left_of_mask(tmp_path: Path, fakes_first: bool) -> None:
    draw_batch(tmp_path / "batch.png", **make_batch(3, fakes_first=fakes_first))
    picture = read_png(tmp_path / "batch.png")
    real, real_pixels = centres_of(picture, GREEN)
    fake, fake_pixels = centres_of(picture, BLUE)
    assert real < fake < picture.shape[1] * 0.67
    assert real_pixels == pytest.approx(fake_pixels, rel=0.05)
    assert real_pixels > 3 * 100 * 100


def test_no_more_than_max_items_are_drawn(tmp_path: Path) -> None:
    for count in (2, 20):
        draw_batch(tmp_path / f"{count}.png", **make_batch(count), max_items=2)
    assert (read_png(tmp_path / "2.png") == read_png(tmp_path / "20.png")).all()


def test_a_batch_without_pairs_is_a_grid_of_labelled_images(tmp_path: Path) -> None:
    images = np.stack([np.full((8, 8, 3), GREEN if i % 2 == 0 else BLUE, np.uint8) for i in range(5)])
    draw_batch(tmp_path / "batch.png", images, [0, 1, 0, 1, 7], [f"photo_{i}.jpg" for i in range(5)])
    picture = read_png(tmp_path / "batch.png")
    assert centres_of(picture, GREEN)[1] > centres_of(picture, BLUE)[1] > 0


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 1, 1], [0, 1, 0, 2]], ids=str)
def test_images_with_masks_that_are_no_pairs_are_a_grid(tmp_path: Path, labels: list[int]) -> None:
    batch = make_batch(2)
    batch = {name: values[: len(labels)] for name, values in batch.items()} | {"labels": labels}
    draw_batch(tmp_path / "with.png", **batch)
    draw_batch(tmp_path / "without.png", **(batch | {"masks": None}))
    assert (read_png(tmp_path / "with.png") == read_png(tmp_path / "without.png")).all()


def test_each_fake_has_its_own_mask(tmp_path: Path) -> None:
    batch = make_batch(2)
    batch["masks"] = np.stack([np.full((8, 8), shade, np.float32) for shade in (0.0, 0.2, 0.0, 0.8)])
    draw_batch(tmp_path / "batch.png", **batch)
    picture = read_png(tmp_path / "batch.png")
    rows = [np.argwhere((picture == shade).all(-1))[:, 0].mean() for shade in (51, 204)]
    fakes = np.unique(np.argwhere((picture == np.array(BLUE)).all(-1))[:, 0])
    assert rows[0] < fakes.mean() < rows[1]


def test_arrays_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    batch = make_batch(2)
    with pytest.raises(ValueError, match="uint8"):
        draw_batch(tmp_path / "b.png", batch["images"] / 255, batch["labels"], batch["ids"])
    with pytest.raises(ValueError, match="equally many, got 4, 4, 1"):
        draw_batch(tmp_path / "b.png", batch["images"], batch["labels"], ["one"])


def make_rows(epochs: int) -> list[dict]:
    return [
        {"epoch": e, "train_loss": 1 / e, "val_loss": None, "val_auc": 0.5 + e / 100, "lr": 5e-5, "alpha": 0.95}
        for e in range(1, epochs + 1)
    ]


def draw(picture: Path, rows: list[dict], *, best_epoch: int | None = 1) -> None:
    """The curves of a run with these rows in its metrics.csv."""
    metrics = MetricsFile(picture.with_suffix(".csv"))
    for row in rows:
        metrics.append(row)
    draw_curves(picture, metrics.path, best_epoch=best_epoch, metric="val_auc", title="a run")


@pytest.mark.parametrize("epochs", [1, 3, 60])
def test_curves_are_drawn_for_any_number_of_epochs(tmp_path: Path, epochs: int) -> None:
    draw(tmp_path / "curves.png", make_rows(epochs))
    picture = read_png(tmp_path / "curves.png")
    assert picture.shape[1] > 1000
    assert (picture != 255).any(-1).mean() > 0.005  # something is on the paper


def test_only_the_panels_that_have_data_are_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", [{"epoch": 1, "val_auc": 0.5}])
    draw(tmp_path / "b.png", make_rows(2))
    assert read_png(tmp_path / "a.png").shape[0] < read_png(tmp_path / "b.png").shape[0]


def test_curves_mark_the_epoch_that_was_selected(tmp_path: Path) -> None:
    for best in (2, 3):
        draw(tmp_path / f"{best}.png", make_rows(4), best_epoch=best)
    assert (tmp_path / "2.png").read_bytes() != (tmp_path / "3.png").read_bytes()


def test_the_columns_of_a_distillation_run_find_their_charts() -> None:
    names = ["epoch", "train_loss", "train_hard", "train_kd", "train_grad_norm", "val_auc", "val_eer", "lr"]
    names += ["hard/weight", "kd/weight", "kd/temperature"]
    training = TrainingResult(columns=dict.fromkeys(names, (1.0, 2.0)), best_epoch=1, metric="val_auc")
    charts = {chart.title: list(chart.columns[1:]) for chart in build_training(training)}
    assert charts == {
        "Validation AUC and AP": ["val_auc"],
        "Training losses": ["train_loss", "train_hard", "train_kd"],
        "Weights of the loss terms": ["hard/weight", "kd/weight"],
        "Temperature": ["kd/temperature"],
        "Validation rates and losses": ["val_eer"],
        "Learning rate": ["lr"],
        "Norm of the gradient": ["train_grad_norm"],
    }


def test_values_that_are_not_finite_leave_gaps_and_no_error(tmp_path: Path) -> None:
    rows = make_rows(3)
    for row in rows:
        row.update(val_auc=float("nan"), train_loss=float("inf"), lr=0.0)
    draw(tmp_path / "curves.png", rows)
    with pytest.raises(ValueError, match="no values"):
        draw(tmp_path / "none.png", [])


def test_a_picture_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    draw(tmp_path / "curves.png", make_rows(2))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        draw_curves(
            tmp_path / "file" / "curves.png", tmp_path / "curves.csv", best_epoch=1, metric="val_auc", title="a run"
        )


PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from sharpstudent.tasks.deepfake.report.pictures import draw_batch
from sharpstudent.report.curves import draw_curves
assert "matplotlib" not in sys.modules, "loaded before it is needed"
folder = Path(sys.argv[1])
draw_batch(folder / "a.png", np.zeros((2, 8, 8, 3), np.uint8), [0, 1], ["a", "b"])
(folder / "m.csv").write_text("epoch,val_auc\\n1,0.5\\n")
draw_curves(folder / "b.png", folder / "m.csv", best_epoch=1, metric="val_auc", title="a run")
assert "matplotlib.pyplot" not in sys.modules, "pyplot keeps global state"
"""


def test_pictures_need_no_global_state_of_matplotlib(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
