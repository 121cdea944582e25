"""The skeleton task: which action a moving skeleton does. Importing this module loads neither torch nor NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sharpstudent.task import (
    Advice,
    Answer,
    Batch,
    ClassificationTask,
    ExportSpec,
    InputSource,
    Metric,
    ModelSpec,
    Outputs,
    Sample,
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

    from sharpstudent.tasks.skeleton.graph import Skeleton

LAST_V2 = "last_v2_base"


def _find_in_five(table: Table) -> NDArray[np.float64]:
    """Return 1.0 for each row with fewer than five classes above its label's logit, else 0.0 (N,)."""
    import numpy as np

    own = np.take_along_axis(table["logits"], table["label"][:, None], 1)
    return ((table["logits"] > own).sum(axis=1) < 5).astype(np.float64)


class SkeletonTask(ClassificationTask):
    """Names the action of a sequence of skeletons.

    Inputs: `joint`, `velocity` and `bone` [m], each float32 (R, 3, T, V): rows, frames, joints; with two bodies also
    `second_joint` and so on, 0 where nobody is. Groups are people.
    """

    Section = SkeletonSection
    demo = "make demo-skeleton"
    section: SkeletonSection
    metrics: ClassVar[Mapping[str, Metric]] = {
        **ClassificationTask.metrics,
        "top5": make_mean_metric(_find_in_five, perfect=1.0, title="top-5 accuracy"),
    }
    unit, group_unit = "sequence", "person"
    renderer = "sharpstudent.tasks.skeleton.renderer:SkeletonRenderer"
    details = "sharpstudent.tasks.skeleton.actions:MotionDetails"

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

    @property
    def skeleton(self) -> Skeleton:
        """The layout of the joints: that of the checkpoint, else that of the config."""
        from sharpstudent.tasks.skeleton.graph import build_skeleton

        kept = self._facts or {}
        return build_skeleton(
            kept.get("skeleton", self.section.skeleton), kept.get("partition", self.section.partition)
        )

    @property
    def form(self) -> SkeletonSection:
        """The section with the form of the models' inputs: that of the checkpoint, where there is one."""
        kept = {name: value for name, value in (self._facts or {}).items() if name in ("frames", "bodies")}
        return self.section.model_copy(update=kept)

    def facts(self) -> dict[str, Any]:
        """The classes, and the form of the inputs: layout of the joints, its partition, frames and bodies."""
        named, kept = self.section.skeleton, self._facts or {}
        layout = kept.get("skeleton", self.skeleton.to_json() if named.endswith(".json") else named)
        partition, form = kept.get("partition", self.section.partition), self.form
        return {
            "skeleton": layout, "partition": partition, "frames": form.frames, "bodies": form.bodies, **super().facts()
        }  # fmt: skip

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        """Open the sequences of the people of each split.

        Raises UserError that names what is missing or wrong with the data.
        """
        from sharpstudent.tasks.skeleton.formats import load_motion
        from sharpstudent.tasks.skeleton.sequences import Sequences

        skeleton = self.skeleton
        motion = load_motion(self.section, skeleton)
        return tuple(Sequences(motion, split, self.section, skeleton) for split in splits)

    def build_student(self, spec: ModelSpec) -> nn.Module:
        """Build a LAST-E, a LAST-v2 or an ST-GCN++ with random weights.

        Raises UserError for an unknown name or option.
        """
        from sharpstudent.tasks.skeleton.last_e import SIZES, LastE
        from sharpstudent.tasks.skeleton.last_v2 import LastV2
        from sharpstudent.tasks.skeleton.stgcn import WIDTHS, StGcn

        choose({name: name for name in (*SIZES, LAST_V2, *WIDTHS)}, spec.name, spec.role)
        known = ("mask_empty",) if spec.name == LAST_V2 else ()
        for option in spec.options:
            if option not in known:
                expected = ", ".join(known) or "its name alone"
                where = f"{spec.role}.{option}"
                raise UserError.about(where, f"is no option of {spec.name}", expected, remedy="leave it out")
        dropout, classes = 0.3 if spec.dropout is None else spec.dropout, len(self.classes)
        if spec.name == LAST_V2:
            mask = bool(spec.options.get("mask_empty", True))
            return LastV2(self.skeleton, classes, dropout=dropout, mask_empty=mask)
        if spec.name in WIDTHS:
            return StGcn(WIDTHS[spec.name], self.skeleton, classes, dropout=dropout)
        return LastE(SIZES[spec.name], self.skeleton, classes, dropout=dropout)

    def example_batch(self, count: int) -> Batch:
        """Return a batch of `count` sequences of zeros."""
        import torch

        from sharpstudent.tasks.skeleton.last_e import STREAMS

        form, names = self.form, tuple(map(str, range(count)))
        shape = (count, 3, form.frames, self.skeleton.joints)
        prefixes = ("", "second_")[: form.bodies]
        return Batch(
            inputs={f"{prefix}{name}": torch.zeros(shape) for prefix in prefixes for name in STREAMS},
            targets={"label": torch.arange(count) % len(self.classes)},
            rows={"id": names, "group": names},
        )

    def export_spec(self) -> ExportSpec:
        """Say what an export does not do: cutting a sequence and building its streams."""
        return ExportSpec(
            outputs=("logits",),
            crop=f"{self.form.frames} frames of a sequence as the streams joint, velocity and bone (docs/skeleton.md)",
        )

    @classmethod
    def advise(cls, rows: Sequence[Mapping[str, Any]]) -> list[Advice]:
        """Advise softer targets where a distilled student still learns little of its training data."""
        from sharpstudent.tasks.skeleton.temperature_advice import advise_temperature

        return advise_temperature(rows)

    @classmethod
    def add_input_options(cls, inputs: Any, models: Any) -> None:
        """Add the options of predict.py for skeletons and videos."""
        from sharpstudent.tasks.skeleton.skeleton_inputs import add_input_options

        add_input_options(inputs)

    def list_suffixes(self) -> tuple[str, ...]:
        """List the endings of skeleton files and videos."""
        from sharpstudent.tasks.skeleton.skeleton_inputs import SUFFIXES, VIDEOS

        return (*SUFFIXES, *VIDEOS)

    def open_input(self, source: InputSource) -> Iterator[Sample]:
        """Read a skeleton file or a video, as one sequence or window by window."""
        from sharpstudent.tasks.skeleton.skeleton_inputs import open_windows

        return open_windows(source, self.form, self.skeleton, self.example_batch(1))

    def describe(self, tables: Iterator[Table], stored: Mapping[str, Any]) -> Iterator[Answer]:
        """Say which action is done when."""
        from sharpstudent.tasks.skeleton.actions import describe_actions

        return describe_actions(tables, stored, self.classes)

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
