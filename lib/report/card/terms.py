"""Terms of others that a model's weights may stand under: of its data, its first weights, its teacher.

Names in the results are looked for; that none is found does not mean that there are none.
"""

from __future__ import annotations

import json
import re

from lib.report.results import ModelResult, Results

_TERMS: tuple[tuple[str, str], ...] = (
    (
        r"ffc23|ffraw|self.blended.images|\bsbis?\b",
        "The weights of *Detecting Deepfakes with Self-Blended Images* (Shiohara & Yamasaki) are given out for "
        "research only, not for commercial use; what learns from them inherits that question.",
    ),
    (
        r"faceforensics|\bffpp|\bff\+\+|\bffc\d|\bffraw",
        "FaceForensics++ is given out for non-commercial research, after an application; weights made from it should "
        "not be used for more.",
    ),
    (r"celeb[-_ ]?df", "Celeb-DF is given out for non-commercial research, after an application."),
    (r"\bdfdc", "The DeepFake Detection Challenge data has terms of its own, accepted at download."),
    (r"\bffiw", "FFIW-10K is given out for research, under terms of its own."),
    (r"deepfakebench", "DeepfakeBench and its weights are under CC BY-NC 4.0: no commercial use."),
    (
        r"imagenet",
        "Pretrained on ImageNet: the pictures are for non-commercial research and education; the pretrained weights "
        "have a licence of their own (timm names it for each).",
    ),
)


def list_terms(results: Results, model: ModelResult, training_data: str | None) -> list[str]:
    """Sentences, for what is named in the training data, in what the checkpoint says and in the run's config."""
    config = {} if results.config is None else dict(results.config)
    told = [training_data or "", model.file, json.dumps(dict(model.trained), default=str, ensure_ascii=False)]
    told += [json.dumps(config.get(key), default=str) for key in ("student", "teachers", "task_section")]
    told += [data.name for data in results.data if data.kind == "validation"]
    told += [one.file for one in results.models if one.role == "teacher" and model.role == "distilled"]
    text = " ".join(told).lower().replace("_", " ")
    return [sentence for pattern, sentence in _TERMS if re.search(pattern, text)]
