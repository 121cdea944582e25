"""The teacher of the wake-word guide, under the guide's name."""

from sharpstudent.tasks.wakeword.wav2vec2 import Wav2VecWakeword

__all__ = ["Wav2VecWakeword"]
