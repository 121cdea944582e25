"""Write the files that are generated from the keys of configs and results, and from the commands.

`python configs/generate.py` writes configs/schema.json, docs/config.md, docs/commands.md, and in docs/ the schemas of
ablation.json, predictions.json and both forms of results.json, after a key or an option was changed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path

from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "lib"))

from config_page import build_config_docs, schema_text
from sharpstudent import commands
from sharpstudent.config.presets import DEFAULT_TASK
from sharpstudent.core.naming import CALLING
from sharpstudent.registry import find_task, list_tasks
from sharpstudent.report.ablation import AblationResults
from sharpstudent.report.predictions import build_schema
from sharpstudent.report.results import EvaluationResults
from sharpstudent.tasks.deepfake.report.results import Results


def find_details() -> dict[str, type[BaseModel]]:
    """Find the form of the details of each registered task's predictions, by the task's name in predictions.json.

    A task that describes its predictions itself, and names no form, has none: that of its base is another's.
    """
    found: dict[str, type[BaseModel]] = {}
    for task in map(find_task, list_tasks()):
        owners = [next(base for base in task.__mro__ if name in vars(base)) for name in ("describe", "details")]
        if task.details is not None and issubclass(owners[1], owners[0]):
            module, name = task.details.split(":")
            found[f"{task.__module__}:{task.__qualname__}"] = getattr(importlib.import_module(module), name)
    return found


COMMANDS_HEAD = """# Commands

Every command of `sharpstudent`, with what `sharpstudent COMMAND --help` prints. In a checkout the script in brackets
is the same command. This page is written by running them: `python configs/generate.py`.
"""


def build_commands_page() -> str:
    """Write docs/commands.md: each command, the script that is the same, and what its `--help` prints."""
    before, CALLING.list_commands = CALLING.list_commands, commands.list_script_commands
    try:
        scripts = {command.removeprefix("sharpstudent "): script for script, command in CALLING.list_commands().items()}
        parts = [COMMANDS_HEAD]
        for name in [*commands.COMMANDS, *commands.list_task_commands()]:
            same = f" (`python {scripts[name]}`)" if name in scripts else ""
            parts.append(f"## {name}\n\n`sharpstudent {name}`{same}\n\n```text\n{_print_help(name)}```\n")
    finally:
        CALLING.list_commands = before
    return "\n".join(parts)


def _print_help(command: str) -> str:
    """Run a command with `--help`, and return what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        commands.run([command, "--help"])
    return out.getvalue()


def build_texts() -> dict[Path, str]:
    """What each generated file should hold."""
    task = find_task(DEFAULT_TASK)
    return {
        ROOT / "configs" / "schema.json": schema_text(task),
        ROOT / "docs" / "config.md": build_config_docs(task),
        ROOT / "docs" / "commands.md": build_commands_page(),
        ROOT / "docs" / "ablation.schema.json": json.dumps(AblationResults.model_json_schema(), indent=2) + "\n",
        ROOT / "docs" / "evaluation.schema.json": json.dumps(EvaluationResults.model_json_schema(), indent=2) + "\n",
        ROOT / "docs" / "predictions.schema.json": json.dumps(build_schema(find_details()), indent=2) + "\n",
        ROOT / "docs" / "results.schema.json": json.dumps(Results.model_json_schema(), indent=2) + "\n",
    }


if __name__ == "__main__":
    for path, text in build_texts().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
