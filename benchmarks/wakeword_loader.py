"""Windows of sound a second on one core: recordings in memory, augmentation, and the mel spectrogram.

python benchmarks/wakeword_loader.py FOLDER [--n-mels 40] [--duration 1.0]
"""

from __future__ import annotations

import argparse
import time

from sharpstudent.core.random import build_generator
from sharpstudent.tasks.wakeword.section import WakewordSection
from sharpstudent.tasks.wakeword.task import WakewordTask
from sharpstudent.tasks.wakeword.windows import Windows

COUNT = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="recordings in a layout of docs/wakeword.md")
    parser.add_argument("--n-mels", type=int, default=40)
    parser.add_argument("--duration", type=float, default=1.0)
    given = parser.parse_args()
    section = WakewordSection.model_validate(
        {"data_root": given.folder, "duration": given.duration, "n_mels": given.n_mels, "check_chain": False}
    )
    (windows,) = WakewordTask(section).open_data("train")
    assert isinstance(windows, Windows)
    places = [place % len(windows) for place in range(COUNT)]
    for place in set(places):
        windows.recordings.read(windows.specs[place].clip.path)
    seconds = 0.0
    for _ in range(2):  # the first time backgrounds are read
        begun = time.process_time()
        for visit, place in enumerate(places):
            windows.make(place, build_generator(0, 1, visit))
        seconds = (time.process_time() - begun) / COUNT
    print(f"{1000 * seconds:.3f} ms of processor time a window, {1 / seconds:,.0f} windows a second on one core")


if __name__ == "__main__":
    main()
