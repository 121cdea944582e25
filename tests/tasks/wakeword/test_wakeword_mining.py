"""Mining: what a model hears in recordings without the word becomes hard negatives of the next training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.wakeword import mine
from sharpstudent.tasks.wakeword.clip_layouts import find_clips
from sharpstudent.tasks.wakeword.section import WakewordSection
from sharpstudent.tasks.wakeword.task import WakewordTask
from spoken_words import RATE, write_words

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: the extra wakeword")


def test_windows_of_false_alarms_are_hard_negatives_of_the_next_training(tmp_path: Path) -> None:
    ramp = np.linspace(-0.5, 0.5, 10 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "evening.wav", ramp, RATE)
    alarm = mine.FalseAlarm(tmp_path / "evening.wav", 4.0, 0.9)
    np.testing.assert_allclose(mine.read_window(alarm, 1.5, RATE), ramp[round(2.5 * RATE) : 4 * RATE], atol=1e-3)
    mine.write_alarms([alarm, alarm], WakewordTask(), tmp_path / "mined")
    (tmp_path / "words").mkdir()
    write_words(tmp_path / "words", speakers=4)
    data: dict[str, Any] = {"data_root": str(tmp_path / "words")}
    before, after = (find_clips(WakewordSection(**data, **more)).take("train") for more in
                     ({}, {"mined": str(tmp_path / "mined")}))  # fmt: skip
    added = [clip for clip in after if clip not in before]
    assert [(clip.category, clip.group, clip.seconds) for clip in added] == [
        ("hard_negative", "mined evening", 1.5)
    ] * 2


def test_a_folder_without_false_alarms_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    write_words(tmp_path / "words", speakers=4)
    with pytest.raises(UserError, match="is no folder of false alarms"):
        find_clips(WakewordSection(data_root=str(tmp_path / "words"), mined=str(tmp_path / "nowhere")))
