"""Turns the false alarms of a model in recordings without the word into hard negatives of the next training.

    sharpstudent mine output/RUN evening.flac recordings/ --out data/mined
    python main_distillation.py configs/wakeword.json -n next --set data.mined=data/mined

The streaming detector of predict.py runs over the recordings. What it heard, which must be all wrong, is written as one
window each, loudest claim first where there are more than are wanted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path
from sharpstudent.core.errors import UserError, exit_codes, format_count_of
from sharpstudent.core.io import make_folder, write_bytes_atomically
from sharpstudent.core.naming import printable
from sharpstudent.core.types import InputSource
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.deploy.predict import describe_stored
from sharpstudent.deploy.predictor import Predictor
from sharpstudent.evaluation.command_line import ModelRequest
from sharpstudent.evaluation.renderer import Renderer, load_renderer
from sharpstudent.tasks.wakeword.clip_layouts import list_sounds
from sharpstudent.tasks.wakeword.clips import HARD
from sharpstudent.tasks.wakeword.recordings import load_soundfile, resample
from sharpstudent.tasks.wakeword.renderer import write_wav
from sharpstudent.tasks.wakeword.task import WakewordTask

MOST = 1000  # windows that a command writes
BATCH_SIZE = 64


@dataclass(frozen=True)
class FalseAlarm:
    """A detection in a recording without the word.

    Attributes:
        path: The recording.
        end: Where the window of the largest probability ends [s].
        confidence: That probability, 0..1.
    """

    path: Path
    end: float
    confidence: float


def find_alarms(renderer: Renderer, model: Path, paths: Sequence[Path]) -> tuple[WakewordTask, list[FalseAlarm]]:
    """Run a model over recordings.

    Args:
        renderer: The task's renderer, which opens the model.
        model: A run folder or a file of a model.
        paths: The recordings, which do not hold the word.

    Returns:
        The task of the model, and what it heard, the surest first.

    Raises:
        UserError: For a model that cannot be opened, and for a recording that cannot be read.
    """
    device = torch.device("cpu")
    opened = renderer.open_model(ModelRequest(model), device)
    task = renderer.open_task(opened)
    assert isinstance(task, WakewordTask)
    predictor, stored = Predictor(opened, task, device, batch_size=BATCH_SIZE), describe_stored(opened, None)
    found: list[FalseAlarm] = []
    for source, tables in predictor.read([InputSource(printable(path.name), path) for path in paths], workers=1):
        assert source.path is not None
        try:
            *_, answer = task.describe(tables, stored)
        except UnreadableSample as error:
            raise UserError.about(error.path, error.reason, remedy="take it out of the recordings") from None
        heard: list[dict[str, Any]] = answer.details["detections"]
        found += [FalseAlarm(source.path, one["peak"], one["confidence"]) for one in heard]
        print(printable(f"{source.name}: {format_count_of(len(heard), 'false alarm')}"), flush=True)
    return task, sorted(found, key=lambda one: -one.confidence)


def read_window(alarm: FalseAlarm, duration: float, sample_rate: int) -> NDArray[np.float32]:
    """Read the window of a false alarm from its recording, float32 (S,); several channels are averaged."""
    with load_soundfile().SoundFile(str(alarm.path)) as file:
        file.seek(max(0, round((alarm.end - duration) * file.samplerate)))
        sound = file.read(round(duration * file.samplerate), dtype="float32", always_2d=True).mean(axis=1)
        return resample(sound, file.samplerate, sample_rate)


def write_alarms(alarms: Sequence[FalseAlarm], task: WakewordTask, folder: Path) -> None:
    """Write windows as `hard_negative/RECORDING__NUMBER.wav`, so that a recording counts as a speaker."""
    make_folder(folder / HARD)
    form = task.form
    for number, alarm in enumerate(alarms):
        name = f"{alarm.path.stem.replace('__', '_')}__{number:04}.wav"
        window = read_window(alarm, form.duration, form.sample_rate)
        write_bytes_atomically(folder / HARD / name, write_wav(window, form.sample_rate))


def _list_recordings(given: Sequence[Path]) -> Iterator[Path]:
    for path in given:
        found = list_sounds(path) if path.is_dir() else [path]
        if not all(one.is_file() for one in found) or not found:
            raise UserError.about(str(path), "holds no recording", expected="a sound file, or a folder of them")
        yield from found


def main(argv: Sequence[str] | None = None) -> None:
    """Turn false alarms in recordings without the wake word into hard negatives of the next training."""
    usage = "sharpstudent mine RUN RECORDING... --out FOLDER [--most N]"
    parser = Parser("mine", str(__doc__), usage=usage, more=EXIT_CODES)
    parser.add_argument("model", metavar="RUN", type=read_path, help="a run folder, or the file of a model")
    parser.add_argument(
        "recordings", metavar="RECORDING", nargs="+", type=read_path, help="files and folders WITHOUT the word"
    )
    parser.add_argument("--out", type=read_path, required=True, help="where the windows go")
    parser.add_argument("--most", type=int, default=MOST, help=f"windows at most ({MOST})")
    given = parser.read(sys.argv[1:] if argv is None else argv)
    paths = list(_list_recordings(given.recordings))
    task, found = find_alarms(load_renderer(WakewordTask), given.model, paths)
    write_alarms(found[: given.most], task, given.out)
    written = format_count_of(min(len(found), given.most), "hard negative")
    print(printable(f"{given.out}: {written}; train with --set data.mined={given.out}"))


if __name__ == "__main__":
    with exit_codes():
        main()
