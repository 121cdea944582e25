"""The JSON Schema of a config file, for editors, and the page that explains every key."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from pydantic import BaseModel
from sharpstudent.config.keys import FileKeys, Stage1Keys, Stage2Keys, TeacherKeys, build_file_model, narrow
from sharpstudent.config.messages import describe_type, describe_usual, list_options, show
from sharpstudent.config.presets import DEFAULT_TASK, PRESETS
from sharpstudent.config.run_config import ALLOWANCES, USUAL, TaskKind
from sharpstudent.config.terms import SHARED_SETTINGS, NumberSetting, TermSpec, list_terms
from sharpstudent.core.schedules import KINDS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def build_schema(task: type[TaskKind]) -> dict[str, Any]:
    """What a config file of one task may hold, with descriptions and defaults."""
    schema = build_file_model(task).model_json_schema()
    schema["properties"]["task"]["default"] = DEFAULT_TASK
    editor_key = {"type": "string", "description": "this schema, for editors; the loader drops it"}
    return {
        "$schema": DIALECT,
        **schema,
        "title": "Config of SharpStudent",
        "properties": {"$schema": editor_key, **schema["properties"]},
    }


def schema_text(task: type[TaskKind]) -> str:
    return json.dumps(build_schema(task), indent=2) + "\n"


def build_config_docs(task: type[TaskKind], name: str = DEFAULT_TASK) -> str:
    """The page docs/config.md: a table for each group of keys. name: of the task."""
    section = task.Section
    place = "In the group `data`, or beside the keys of every task." if section.flat_keys else "In the group `data`."
    parts = [
        INTRODUCTION,
        "## Keys of every task\n",
        build_table(narrow(FileKeys, task), {"task": DEFAULT_TASK}),
        f"\n## Keys of the task {show(name)}\n",
        f"{place} {inspect.getdoc(section)}\n",
        build_table(section),
        *build_lists(section),
        "\n## `stage1`: stage 1 only\n",
        "A key of this group wins over the flat key of the same name. Null means: take the flat key.\n",
        build_table(narrow(Stage1Keys, task)),
        "\n## `stage2`: stage 2 only\n",
        build_table(narrow(Stage2Keys, task)),
        "\n## `teachers`: a list, each teacher with these keys\n",
        build_table(TeacherKeys),
        "\n## Schedules\n",
        SCHEDULES,
        "| In words | In the file |\n|---|---|",
        *(f"| {words} | `{json.dumps(example)}` |" for words, example in EXAMPLES),
        "",
        build_kinds_table(),
        build_terms_docs(list_terms(task.terms)),
        "\n## `--allow NAME`\n",
        "Everything that is refused unless forced:\n",
        "\n".join(f"- `{name}`: {meaning}." for name, meaning in ALLOWANCES.items()),
    ]
    return "\n".join(parts) + "\n"


def build_terms_docs(terms: Mapping[str, TermSpec]) -> str:
    """The section on the terms of the loss and on the flat keys that stand for them."""
    rows = [
        f"| `{name}` | {_escape(spec.meaning)} | {SOURCE_WORDS[spec.source]} | {_describe_settings(spec) or 'none'} |"
        for name, spec in terms.items()
    ]
    presets = [
        f"| `{name}` | {preset.meaning} | {', '.join(f'`{key}`' for key in preset.keys)} |"
        for name, preset in PRESETS.items()
    ]
    return "\n".join(
        (
            TERMS_INTRODUCTION,
            "| Term | What it is | Learns from | Settings |",
            "|---|---|---|---|",
            *rows,
            SHARED_INTRODUCTION,
            "| Setting | Default | Meaning | Terms |",
            "|---|---|---|---|",
            *(_describe_shared(name, terms) for name in SHARED_SETTINGS),
            PRESETS_INTRODUCTION,
            "| Preset | What it says | Its keys |",
            "|---|---|---|",
            *presets,
        )
    )


def _describe_settings(spec: TermSpec) -> str:
    parts: list[str] = []
    for name, setting in spec.settings.items():
        default = "" if setting.default is None else f" ({show(setting.default)})"
        fixed = ", no schedule" if isinstance(setting, NumberSetting) and not setting.is_schedulable else ""
        parts.append(f"`{name}`{default}: {setting.meaning}{fixed}")
    return _escape("; ".join(parts))


def _describe_shared(name: str, terms: Mapping[str, TermSpec]) -> str:
    setting = SHARED_SETTINGS[name]
    takers = [term for term, spec in terms.items() if name in spec.all_settings]
    told = "all" if len(takers) == len(terms) else ", ".join(f"`{term}`" for term in takers)
    default = f"`{show(setting.default)}`" if setting.default else "none"
    return f"| `{name}` | {default} | {_escape(setting.meaning)} | {told} |"


def build_kinds_table() -> str:
    """`| Kind | Its keys | What it does |`, one row a kind of schedule."""
    rows: list[str] = []
    for name, kind in KINDS.items():
        keys = [field for field in fields(kind) if field.name not in ("kind", "complement")]
        told = [f"`{key.name}`" + ("" if key.default is MISSING else f" ({key.default})") for key in keys]
        meaning = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
        rows.append(f"| `{name}` | {', '.join(told)} | {_escape(meaning)} |")
    return "\n".join(("| Kind | Its keys | What it does |", "|---|---|---|", *rows))


def build_table(model: type[BaseModel], defaults: Mapping[str, Any] | None = None) -> str:
    """`| Key | Type | Default | Meaning |`, one row a field. defaults: what another place says of some of them."""
    properties: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    for name, default in (defaults or {}).items():
        properties[name]["default"] = default
    rows = [
        f"| `{name}` | {_escape(describe_type(found))} | {_show_default(found)} | {_escape(_explain(found))} |"
        for name, found in properties.items()
    ]
    return "\n".join(("| Key | Type | Default | Meaning |", "|---|---|---|---|", *rows))


def build_lists(section: type[BaseModel]) -> list[str]:
    """A heading and a table for each form of a key's value that has keys itself: a list of kinds, or a group.

    Keys whose values have the same form share one table.
    """
    schema = section.model_json_schema()
    keys: dict[str, list[str]] = {}
    for name, found in schema["properties"].items():
        for option in list_options(schema, found):
            members = list_options(schema, option["items"]) if "items" in option else []
            kind, _ = _find_kind(members[0]) if len(members) > 1 else ("", "")
            if kind:
                table = f"a list, each item with a key `{kind}`\n\n{_build_members(members)}"
            elif "properties" in option:
                table = f"a group of keys\n\n{_build_group(option['properties'])}"
            else:
                continue
            keys.setdefault(table, []).append(name)
    return [f"\n### {', '.join(f'`{name}`' for name in names)}: {table}" for table, names in keys.items()]


def _build_group(properties: Mapping[str, dict[str, Any]]) -> str:
    rows = [
        f"| `{name}` | {_show_default(found)} | {_escape(found['description'])}{_bound(found)} |"
        for name, found in properties.items()
    ]
    return "\n".join(("| Key | Default | Meaning |", "|---|---|---|", *rows))


def _find_kind(member: Mapping[str, Any]) -> tuple[str, str]:
    """The key of an object whose one value names its kind, and that value; empty texts where no key does."""
    return next(
        ((name, str(one["const"])) for name, one in member.get("properties", {}).items() if "const" in one), ("", "")
    )


def _build_members(members: Sequence[dict[str, Any]]) -> str:
    """A row for each kind; what a key of every kind means stands above the table, once."""
    key, _ = _find_kind(members[0])
    shared = {
        name: found["description"]
        for name, found in members[0]["properties"].items()
        if name != key
        and all(member["properties"].get(name, {}).get("description") == found["description"] for member in members)
    }
    told = [f"`{name}`, a key of each item: {meaning}.\n" for name, meaning in shared.items()]
    rows: list[str] = []
    for member in members:
        keys = [
            f"`{name}` ({show(found['default'])})"
            + ("" if name in shared else f": {found['description']}{_bound(found)}")
            for name, found in member["properties"].items()
            if name != key
        ]
        _, kind = _find_kind(member)
        rows.append(f"| `{kind}` | {_escape(member['properties'][key]['description'])} | {_escape('; '.join(keys))} |")
    return "\n".join((*told, f"| `{key}` | What it does | Its keys |", "|---|---|---|", *rows))


def _bound(found: dict[str, Any]) -> str:
    """The range of a number, or of both ends of a range: ` (0 to 51)`."""
    number = found["prefixItems"][0] if "prefixItems" in found else found
    return f" ({number['minimum']:g} to {number['maximum']:g})" if {"minimum", "maximum"} <= number.keys() else ""


def _explain(found: Mapping[str, Any]) -> str:
    """What a key means, and the range of its number in which it makes sense."""
    return found["description"] + (f" (usual: {describe_usual(found[USUAL])})" if USUAL in found else "")


def _show_default(found: dict[str, Any]) -> str:
    return f"`{show(found['default'])}`" if "default" in found else "empty"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


SCHEDULES = """`lr`, `rho`, and in `terms` every `weight` and every number that may move are a number or a schedule:

```
"lr": { "kind": "cosine", "start": 0.0001, "end": 0.000001 },
"stage2": { "rho": { "kind": "ramp", "value": 0.05, "epochs": 3 } }
```

Epochs count from 1. `linear`, `cosine` and `ramp` move with every step, the others between epochs. `linear` and
`cosine` have `start` at the first step of the run and `end` at the last, to the bit; a run of one step has `start`. A
`ramp` takes its first step above 0, with 1 / (steps of the ramp) of the value, and has all of it at its last step.

A schedule of `lr` stands alone: `flat` and `warmup` beside it are refused; so are `rho_end` and `rho_warmup` beside
a schedule of `rho`. A flat key beside a schedule in `stage1` or `stage2` serves the other stage. Stage 1 takes twice
every value of the flat `lr`, schedule or number. `lr` must stay above 0 and at most 100 at every step, so that a cosine
ends a little above 0; `rho` and weights must stay at least 0, temperatures above 0. `--print-config` lists what
changes. With `"complement": true`, a schedule is one minus itself, for weights of the loss.
"""

# One of each kind, for the page; a test builds every one.
EXAMPLES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("always 0.5", {"kind": "constant", "value": 0.5}),
    ("in a straight line from 0.9 to 0.5", {"kind": "linear", "start": 0.9, "end": 0.5}),
    ("in half a cosine from 0.9 to 0.5: slow, quick, slow", {"kind": "cosine", "start": 0.9, "end": 0.5}),
    (
        "in four stairs over 20 epochs, 0.95, 0.85, 0.75, 0.65, then 0.5",
        {"kind": "staircase", "start": 0.95, "end": 0.5, "epochs": 20},
    ),
    ("from 0 to 0.4 over 2 epochs, then 0.4", {"kind": "ramp", "value": 0.4, "epochs": 2}),
    ("0.9 from epoch 1, 0.7 from 10, 0.5 from 30", {"kind": "table", "points": {"1": 0.9, "10": 0.7, "30": 0.5}}),
    ("1 until the end of epoch 5, then 0.3", {"kind": "two_stage", "start": 1.0, "end": 0.3, "epochs": 5}),
)

SOURCE_WORDS = {None: "the targets", "teacher": "the teachers", "ema": "the student's averaged weights"}

TERMS_INTRODUCTION = """
## Terms

The loss of stage 2 is a sum of terms with absolute weights. `terms` lists them, and stands in place of the flat keys
of the guide (both at once are refused); `stage1.terms` and `stage2.terms` win in their stage:

```
"terms": [
  { "term": "hard", "weight": 0.6, "label_smoothing": 0.05 },
  { "term": "kd", "weight": { "kind": "ramp", "value": 0.4 }, "temperature": 3.0 },
  { "term": "features", "weight": 0.1, "student_layer": "backbone.blocks.5", "teacher_layer": "net._blocks.31" }
]
```

`weight` (1) and every number that may move are a number or a schedule; `name` tells two terms of one kind apart in the
log. `--list-layers` shows the layers that can be named. A term that cannot teach the classes at hand is refused before
training. [terms.md](terms.md) has formula, paper, cost and use of each; [adding-a-term.md](adding-a-term.md) adds one.
"""

SHARED_INTRODUCTION = """
Models with more outputs than `logits`, and samples that lack some targets, are served by settings that terms share:
"""

PRESETS_INTRODUCTION = """
The flat keys are sugar for such a list; `--print-config` shows which. The keys that are there decide the preset, the
key `preset` (earlier: `dialect`) may name it, and keys of two presets are refused:
"""

INTRODUCTION = """# The config file

<!-- Generated by `python configs/generate.py` from lib/sharpstudent/config and the task's section. Do not edit. -->

A config is a JSON file; `//` and `/* */` comments and trailing commas are allowed. One file serves both stages:

| | Stage 1 (`train_student_only.py`) | Stage 2 (`main_distillation.py`) |
|---|---|---|
| samples per batch | `stage1.batch_size`, else `batch_size` | `stage2.batch_size`, else max(1, `batch_size` // 4) |
| learning rate | `stage1.lr`, else 2 x `lr` | `stage2.lr`, else `lr` |
| loss | hard labels | alpha x hard labels + (1 - alpha) x T^2 x KL to the teacher |
| starts from | `start`, else `student_init` | `pretrained_student_weights` |
| teacher | none; `teacher_weights` is not opened | `teacher` with `teacher_weights`, or the list `teachers` |

**Alpha is the weight of the hard labels.** It goes from `alpha_start` to `alpha_end` in four stairs over
`progressive_epochs` epochs (0.95, 0.85, 0.75, 0.65, then 0.50 with the defaults), and never rises: `alpha_start` below
`alpha_end` is refused, because such numbers come from recipes whose alpha weighs the teacher. A key called just `alpha`
is refused for the same reason. With `use_progressive_distillation` false, alpha is `alpha_end` throughout.

`task` says what is learnt. A task's own keys stand in the group `data` (`"data": { ... }`). `student`,
`teacher` and a teacher's `model` are a name, or a name with options of that model:
`"student": { "name": "small", "width": 32 }`. A task of your own is `"task": "package.module:Class"` or
`--task package.module:Class`. Its module is looked up in the folder of this file, then in the current folder. What is
imported is never decided by a checkpoint or a stored run, so that a run of such a task is resumed with its CONFIG or
with `--task`.

On the command line `--set key=value` changes a key and `--set group.key=value` a key of a group.
A value that reads as JSON is that value; anything else is text (`--set student_init=best.pth`; a name made of digits
needs quotation marks: `--set 'student_init="123"'`). `--print-config` shows what came out of it, without opening
data or weights. Unknown keys, wrong types and values out of range are refused, all of them in one message.
Relative paths start at the folder in which the command runs.
"""
