"""The task `tokens`: small pictures of few classes, chosen by accuracy. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sharpstudent.task import (
    Batch,
    ClassificationTask,
    ExportSpec,
    InputSource,
    ModelSpec,
    Sample,
    Samples,
    UnreadableSample,
    UserError,
)
from sharpstudent.tasks.tokens.section import CLEAN, TokensSection

if TYPE_CHECKING:
    from torch import nn

DIGITS = tuple("0123456789")


class TokensTask(ClassificationTask):
    """Which class a small picture shows."""

    Section = TokensSection
    demo = "make demo-tokens"
    section: TokensSection
    unit, group_unit = "picture", "picture"
    renderer: ClassVar[str | None] = "sharpstudent.tasks.tokens.renderer:TokensRenderer"
    pretrained: ClassVar[Mapping[str, str]] = {"imagenet": "sharpstudent.models.pretrained:load_imagenet"}

    def __init__(
        self, section: Any = None, facts: Mapping[str, Any] | None = None, *, allow: Sequence[str] = ()
    ) -> None:
        """Build the task as `ClassificationTask` does; a training run takes the classes from its data."""
        super().__init__(section, facts, allow=allow)
        if not self.classes:
            self.classes = self._find_classes()

    def _find_classes(self) -> tuple[str, ...]:
        if self.section.source != "folder":
            return DIGITS
        train = Path(self.section.data_root) / "train"
        return tuple(sorted(path.name for path in train.iterdir() if path.is_dir())) if train.is_dir() else ()

    @property
    def _form(self) -> tuple[int, int]:
        """Side and channels of the models' pictures: those of a checkpoint, else of the section."""
        facts = self._facts or {}
        return facts.get("image_size", self.section.image_size), facts.get("channels", self.section.channels)

    def facts(self) -> dict[str, Any]:
        """The classes, and the form of the pictures."""
        size, channels = self._form
        return {**super().facts(), "image_size": size, "channels": channels}

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        """Open splits: `train`, `validation` and `test`."""
        from sharpstudent.tasks.tokens.small_pictures import open_split

        return tuple(open_split(split, self.section, self.classes) for split in splits)

    def build_student(self, spec: ModelSpec) -> nn.Module:
        """Build a token transformer, a small CNN or a timm model."""
        from sharpstudent.tasks.tokens.models import build_model

        size, channels = self._form
        return build_model(spec, classes=len(self.classes), image_size=size, channels=channels)

    def example_batch(self, count: int) -> Batch:
        """Make a batch of noise with labels."""
        import torch

        size, channels = self._form
        draws = torch.Generator().manual_seed(0)
        names = tuple(map(str, range(count)))
        image = torch.rand(count, channels, size, size, generator=draws)
        return Batch(
            inputs={"image": image, CLEAN: image} if self.section.clean_view else {"image": image},
            targets={"label": torch.arange(count) % max(len(self.classes), 1)},
            rows={"id": names, "group": names},
        )

    def inspect_student(self, model: nn.Module) -> Mapping[str, float]:
        """Measure how much clauses and attention heads are used, before and after the gains of the heads."""
        from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer

        return model.describe_usage() if isinstance(model, UnifiedTMTransformer) else {}

    def export_spec(self) -> ExportSpec:
        """Export the logits alone: the diagnostic heads are for training."""
        return ExportSpec(outputs=("logits",))

    def list_suffixes(self) -> tuple[str, ...]:
        """List the endings of pictures."""
        return (".png", ".jpg", ".jpeg", ".bmp")

    def open_input(self, source: InputSource) -> Iterator[Sample]:
        """Read one picture. Raises UnreadableSample for a file that is none, and for a stream."""
        from sharpstudent.tasks.tokens.small_pictures import prepare_picture, read_picture

        if source.path is None:
            raise UnreadableSample(source.name, "is a stream, and this task answers about files of pictures")
        try:
            picture = read_picture(source.path)
        except UserError as error:
            raise UnreadableSample(source.name, str(error)) from error
        yield Sample(inputs={"image": prepare_picture(picture, *self._form)[None]}, rows={"id": (source.name,)})
