"""Exports the transformers under the document's name; `ckpt["model_kwargs"]` of its checkpoints fit them."""

from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer

__all__ = ["UnifiedTMTransformer"]
