"""The yardstick of configs/skeleton_folds.json: logistic regression on twelve frames, over the same five folds.

    python demo/skeleton/yardstick.py

Positions are relative to the waist in the first frame; mirrored copies are learnt from, too, as the models do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sharpstudent.config.load import read_config_file
from sharpstudent.tasks.skeleton.formats import load_motion
from sharpstudent.tasks.skeleton.graph import SKELETONS
from sharpstudent.tasks.skeleton.motion import METRES
from sharpstudent.tasks.skeleton.movements import mirror, resample
from sharpstudent.tasks.skeleton.section import SkeletonSection
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FRAMES = 12


def flatten(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions (n, V, 3) as one row."""
    found = resample(xyz, 0.0, len(xyz) - 1.0, FRAMES)
    return (found - found[0, 0]).ravel()


def main() -> None:
    section, layout = SkeletonSection.model_validate({"data_root": "demo/skeleton"}), SKELETONS["uiprmd22"]
    motion = load_motion(section, layout)
    found = [motion.read(number)[0].astype(np.float64) * METRES[section.unit] for number in range(len(motion.labels))]
    rows = np.stack([flatten(one) for one in found])
    mirrored = np.stack([flatten(mirror(one, layout)) for one in found])
    people, right = np.array(motion.subjects), np.zeros(len(found), bool)
    for name, fold in read_config_file(Path("configs/skeleton_folds.json"))["folds"].items():
        test = np.isin(people, fold["keys"]["data.test_subjects"])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        model.fit(np.concatenate([rows[~test], mirrored[~test]]), np.tile(motion.labels[~test], 2))
        right[test] = model.predict(rows[test]) == motion.labels[test]
        print(f"{name}: {right[test].mean():.3f}")
    by_person = [f"{right[people == one].mean():.2f}" for one in dict.fromkeys(motion.subjects)]
    print(f"all: {right.mean():.3f}; by person: {', '.join(by_person)}")


if __name__ == "__main__":
    main()
