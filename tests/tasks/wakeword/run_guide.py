"""Runs the code of the wake-word guide as it is printed: `python run_guide.py GUIDE`, in a folder with `data/splits`.

Only what a small machine cannot take is replaced: the GPU, and the number of epochs. Where the guide writes
`DistillationTrainer(...)`, the arguments are those of its first example.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ARGUMENTS = (
    "DistillationTrainer(model=student_model, train_loader=train_loader, val_loader=val_loader, config=config, "
    "checkpoint_manager=checkpoint_manager, device='cpu')"
)
REPLACED = (
    ('"cuda"', '"cpu"'), (".cuda()", ""), ("DistillationTrainer(...)", ARGUMENTS),
)  # fmt: skip
EPOCHS = re.compile(r"(epochs(?: =|:)) \d+")


def find_block(guide: str, heading: str, language: str) -> str:
    """The first block of code behind a heading."""
    found = re.search(rf"{re.escape(heading)}.*?```{language}\n(.*?)```", guide, re.S)
    assert found is not None, heading
    code = EPOCHS.sub(r"\1 1", found[1])
    for old, new in REPLACED:
        code = code.replace(old, new)
    return code


def main() -> None:
    guide = Path(sys.argv[1]).read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for heading in ("### Example 1", "### Example 2", "### Example 3", "#### Step 2: Load", "### Method 2"):
        if heading == "#### Step 2: Load":
            Path("config").mkdir()
            yaml = find_block(guide, "#### Step 1: Create Configuration", "yaml")
            Path("config/distillation_config.yaml").write_text(yaml)
        if heading == "### Example 2":  # it changes the form of the input, so the first example's model does not fit
            code = find_block(guide, heading, "python")
            before, _, after = code.partition("# Create and train")
            exec(compile(before, heading, "exec"), names)
            exec(AGAIN, names)
            exec(compile(after, heading, "exec"), names)
        else:
            exec(compile(find_block(guide, heading, "python"), heading, "exec"), names)
        if heading in ("### Example 2", "### Example 3"):
            names["results"] = names["trainer"].train() if heading == "### Example 3" else None
        config = names["config"]
        print(f"DONE {heading}: alpha {config.distillation.alpha}, T {config.distillation.temperature}", flush=True)
        student = "resnet18" if heading == "### Example 2" else "mobilenetv3"  # of the next block's config
        names["student_model"] = names["create_model"](student, num_classes=2, input_size=64)


AGAIN = """
student_model = create_model(architecture=config.model.architecture, input_size=config.data.n_mels)
"""

if __name__ == "__main__":
    main()
