"""The skeleton task: which action a moving skeleton does. Importing this module loads neither torch nor NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sharpstudent.task import (
    Batch,
    ClassificationTask,
    Metric,
    ModelSpec,
    Outputs,
    Samples,
    Table,
    UserError,
    choose,
    make_mean_metric,
)
from sharpstudent.tasks.skeleton.section import SkeletonSection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn


def _find_in_five(table: Table) -> NDArray[np.float64]:
    """Return 1.0 for each row with fewer than five classes above its label's logit, else 0.0 (N,)."""
    import numpy as np

    own = np.take_along_axis(table["logits"], table["label"][:, None], 1)
    return ((table["logits"] > own).sum(axis=1) < 5).astype(np.float64)


class SkeletonTask(ClassificationTask):
    """Names the action of a sequence of skeletons.

    Inputs: `joint`, `velocity` and `bone` [m], each float32 (R, 3, T, V): rows, frames, joints. Groups are people.
    """

    Section = SkeletonSection
    section: SkeletonSection
    metrics: ClassVar[Mapping[str, Metric]] = {
        **ClassificationTask.metrics,
        "top5": make_mean_metric(_find_in_five, perfect=1.0, title="top-5 accuracy"),
    }
    unit, group_unit = "sequence", "person"

    def __init__(
        self, section: Any = None, facts: Mapping[str, Any] | None = None, *, allow: Sequence[str] = ()
    ) -> None:
        """Build the task as `Task` does; without facts, the classes are those of the section.

        Args:
            section: An instance of `SkeletonSection`; None for the defaults of its keys.
            facts: What `facts()` gave when the checkpoint was written; None in a training run.
            allow: The names given with `--allow`.
        """
        super().__init__(section, facts, allow=allow)
        self.classes = tuple((facts or {}).get("classes", self.section.classes))

    def facts(self) -> dict[str, Any]:
        """The classes, and the form of the inputs: layout of the joints and number of frames."""
        form = {"skeleton": self.section.skeleton, "frames": self.section.frames}
        return {**form, **super().facts()}

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        """Open the sequences of the people of each split.

        Raises UserError that names what is missing or wrong with the data.
        """
        from sharpstudent.tasks.skeleton.motion import Sequences, load_motion

        motion = load_motion(self.section)
        return tuple(Sequences(motion, split, self.section) for split in splits)

    def build_student(self, spec: ModelSpec) -> nn.Module:
        """Build a LAST-E with random weights. Raises UserError for an unknown name or option."""
        from sharpstudent.tasks.skeleton.graph import SKELETONS
        from sharpstudent.tasks.skeleton.last_e import SIZES, LastE

        size = choose(SIZES, spec.name, spec.role)
        if spec.options:
            option = next(iter(spec.options))
            raise UserError.about(
                f"{spec.role}.{option}", "is no option of LAST-E", "its name alone", remedy="leave it out"
            )
        dropout = 0.3 if spec.dropout is None else spec.dropout
        return LastE(size, SKELETONS[self.facts()["skeleton"]], len(self.classes), dropout=dropout)

    def example_batch(self, count: int) -> Batch:
        """Return a batch of `count` sequences of zeros."""
        import torch

        from sharpstudent.tasks.skeleton.graph import SKELETONS
        from sharpstudent.tasks.skeleton.last_e import STREAMS

        form, names = self.facts(), tuple(map(str, range(count)))
        shape = (count, 3, form["frames"], SKELETONS[form["skeleton"]].joints)
        return Batch(
            inputs={name: torch.zeros(shape) for name in STREAMS},
            targets={"label": torch.arange(count) % len(self.classes)},
            rows={"id": names, "group": names},
        )

    def rows(self, outputs: Outputs, batch: Batch) -> Table:
        """Collect logits and labels, and the columns `subject` and `action` that `--by` divides metrics by.

        Args:
            outputs: What the model returned for the batch.
            batch: The batch.

        Returns:
            The columns, each of R rows.
        """
        import numpy as np

        table = super().rows(outputs, batch)
        actions = np.array([self.classes[label] for label in table["label"].tolist()])
        return {**table, "subject": np.array(batch.rows["group"]), "action": actions}
