"""Run as a program: load with workers, again and again, from a process in which OpenCV's threads are busy."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "helpers"), str(HERE)]

from made_samples import MadeSamples
from sharpstudent.core.types import Sample
from sharpstudent.data.loader import load_batches
from sharpstudent.data.sampler import TrainSampler


class Blurred(MadeSamples):
    """Samples that need OpenCV, as faces do."""

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        cv2.warpAffine(rng.random((256, 256, 3), np.float32), np.eye(2, 3), (256, 256))
        return super().make(index, rng)


if __name__ == "__main__":
    cv2.setNumThreads(4)
    for _ in range(12):
        for workers in (0, 2):
            order = TrainSampler(6, 3, 1, seed=0)
            assert len(list(load_batches(Blurred(6), order.batches(1), seed=0, num_workers=workers))) == 2
            assert cv2.getNumThreads() == 4
