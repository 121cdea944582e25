"""From a plain dictionary to typed, frozen keys, with every mistake reported at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from lib.config.keys import FileKeys, build_file_model
from lib.config.messages import explain, find_bare_alpha, find_unwritable_text
from lib.config.sections import TaskSection
from lib.config.words import show
from lib.errors import Problem, ProblemList, UserError


def validate_keys(keys: Mapping[str, Any], section_model: type[TaskSection]) -> FileKeys:
    """The keys of a file as a model; `keys` holds JSON values only. Raises one `UserError` with all problems."""
    unwritable = find_unwritable_text(keys)
    if unwritable:
        raise UserError(*unwritable)
    problems = ProblemList()
    alphas = find_bare_alpha(keys)
    for problem in alphas:
        problems.add(problem)
    model = build_file_model(section_model)
    try:
        # Through JSON, so that strictness means JSON's types: a list may fill a tuple, a string may not fill a number.
        validated = model.model_validate_json(json.dumps(keys))
    except ValidationError as error:
        named = {problem.where for problem in alphas}
        for problem in explain(error, model, keys).problems:
            if problem.where not in named:
                problems.add(problem)
        problems.raise_if_any()
        raise
    problems.raise_if_any()
    return validated


def choose_section(keys: Mapping[str, Any], sections: Mapping[str, type[TaskSection]]) -> type[TaskSection]:
    """The section model of the task that the keys name."""
    task: Any = keys.get("task", FileKeys.model_fields["task"].default)
    if isinstance(task, str) and task in sections:
        return sections[task]
    raise UserError(
        Problem(
            "task",
            "is not a known task",
            expected=f"one of {', '.join(show(name) for name in sorted(sections))}",
            got=show(task),
            remedy="write one of these, or leave the key out",
        )
    )
