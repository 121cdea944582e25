"""Finds the class of a task by its registered name or its import path. Importing this loads neither torch nor NumPy.

A name comes from the entry-point group `sharpstudent.tasks`. A package with its own tasks registers them there, and the
built-in ones are registered in the same way:

    [project.entry-points."sharpstudent.tasks"]
    digits = "digits.task:Digits"

The metadata of an editable installation do not change when pyproject.toml does. So the built-in names are read from the
pyproject.toml of the checkout, if there is one, and otherwise from the installed package.

`package.module:Class` names a class that is not registered. Only the user may do that, in a config or by `--task`. A
checkpoint, a model file and the stored config of a run can name registered tasks only, so that no file decides what is
imported. The folders in which such a module is looked up are added at the end of `sys.path` and stay there. So their
modules never replace installed ones, and the module can import its neighbours, also in the processes that load data.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.machinery
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from sharpstudent.config.keys import FileKeys
from sharpstudent.config.messages import show
from sharpstudent.config.run_config import RunConfig, TaskSection
from sharpstudent.config.terms import check_own_terms
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.task import Task

GROUP = "sharpstudent.tasks"
PROJECT = "sharpstudent"
# Files whose lines are left out of the tracebacks in messages.
_OF_THE_IMPORT = ("<frozen importlib", str(Path(importlib.__file__).parent))
_REFERENCE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"


def find_task(
    name: str,
    *,
    beside: Sequence[Path] = (),
    trusted: bool = False,
    where: str = "task",
    remedy: str | None = None,
) -> type[Task]:
    """Find the class of a task.

    Args:
        name: The name of a registered task, or `package.module:Class`.
        beside: Folders in which such a module is looked up, in this order, beside the installed packages.
        trusted: Whether the user wrote the name. If not, `package.module:Class` is refused without an import.
        where: What messages call the place of the name.
        remedy: What messages advise where a name that is not trusted is refused; None to advise `--task`.

    Returns:
        The class.

    Raises:
        UserError: If the name, the module or the class is wrong; the message says how.
    """
    if ":" in name:
        if not trusted:
            raise UserError(_explain_untrusted(name, where, remedy))
        return _load_local(name, beside, where)
    builtin = _read_builtin()
    if name in builtin:
        return _check(_import(builtin[name], where, f"the task {show(name)}"), where)
    registered = _list_registered()
    found = sorted(registered.get(name, {}))
    if len(found) > 1:
        shown = "; ".join(f"{reference} of {registered[name][reference]}" for reference in found)
        what = "is the name of several installed tasks"
        raise UserError.about(where, what, got=shown, remedy="uninstall all but one, or name package.module:Class")
    if not found:
        raise UserError(_explain_unknown(name, {**builtin, **registered}, where))
    return _check(_import(found[0], where, f"the task {show(name)} of {registered[name][found[0]]}"), where)


def list_tasks() -> list[str]:
    """List the names of all registered tasks."""
    return sorted({**_read_builtin(), **_list_registered()})


def build_task(config: RunConfig, task: type[Task] | None = None) -> Any:
    """Build the task of a run.

    Args:
        config: The config of the run.
        task: The class of the task, where the user has named it; None to find a registered one.

    Returns:
        The task.
    """
    built = (find_task(config.task) if task is None else task)(config.task_section, allow=config.allow)
    setattr(built, "selection_metric", f"val_{config.training.selection_metric}")  # noqa: B010, the engine reads it from the task
    return built


def _read_builtin() -> Mapping[str, str]:
    """Read name -> `package.module:Class` of this project's own tasks."""
    try:
        text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        text = ""
    # As text, because the parser of TOML takes longer to load than the rest of the command line needs.
    if f'\nname = "{PROJECT}"\n' in text:
        table = text.partition(f'\n[project.entry-points."{GROUP}"]\n')[2].partition("\n[")[0]
        return dict(re.findall(r'(?m)^([\w.-]+)\s*=\s*"([^"]*)"', table))
    from importlib import metadata  # imported here: a checkout needs it for the tasks of other packages only

    try:
        points = metadata.distribution(PROJECT).entry_points
    except metadata.PackageNotFoundError:
        return {}
    return {point.name: point.value for point in points if point.group == GROUP}


def _list_registered() -> dict[str, dict[str, str]]:
    """List name -> `package.module:Class` -> the name of the installed package that registers it."""
    from importlib import metadata

    found: dict[str, dict[str, str]] = {}
    for point in metadata.entry_points(group=GROUP):
        found.setdefault(point.name, {})[point.value] = "a project" if point.dist is None else point.dist.name
    return found


def _load_local(reference: str, beside: Sequence[Path], where: str) -> type[Task]:
    if re.fullmatch(_REFERENCE, reference) is None or reference.partition(":")[0].endswith(".py"):
        raise UserError.about(
            where,
            "does not name a class",
            expected="package.module:Class, such as digits:Digits for the class Digits in digits.py",
            got=show(reference),
            remedy="write a module and not a path: dots for slashes, and no .py",
        )
    folders = list(dict.fromkeys(folder.resolve() for folder in beside))
    sys.path += [str(folder) for folder in folders if str(folder) not in sys.path]
    importlib.invalidate_caches()
    _refuse_hidden(reference.partition(":")[0].partition(".")[0], folders, where)
    return _check(_import(reference, where, show(reference), folders), where)


def _refuse_hidden(top: str, folders: Sequence[Path], where: str) -> None:
    """Refuse a module beside the config that Python does not find, because another one has its name."""
    local = next((spec for folder in folders if (spec := _find_in(top, folder)) is not None), None)
    if local is None:
        return
    loaded = sys.modules.get(top)
    taken = getattr(loaded, "__spec__", None) if loaded is not None else importlib.util.find_spec(top)
    origin = None if taken is None else taken.origin
    if origin is None or local.origin is None or Path(origin).resolve() != Path(local.origin).resolve():
        raise UserError.about(
            where,
            f"names the module {top}, and another one of that name comes first",
            expected=str(local.origin),
            got=str(origin or "a module of Python's own"),
            remedy=f"rename {Path(str(local.origin)).name if local.origin else top}",
        )


def _find_in(top: str, folder: Path) -> importlib.machinery.ModuleSpec | None:
    spec = importlib.machinery.PathFinder.find_spec(top, [str(folder)])
    return None if spec is None or spec.loader is None else spec  # a folder without __init__.py hides no other module


def _import(reference: str, where: str, who: str, folders: Sequence[Path] = ()) -> object:
    """Import what `package.module:Class` names; messages call it `who`."""
    module_name, _, class_name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(_explain_no_module(module_name, error.name, where, folders)) from error
        raise UserError(_explain_broken(error, module_name, where, who)) from error
    except Exception as error:
        raise UserError(_explain_broken(error, module_name, where, who)) from error
    if not hasattr(module, class_name):
        raise UserError(_explain_no_class(module, class_name, where))
    return getattr(module, class_name)


def _check(found: object, where: str) -> type[Task]:
    """Check that an object is the class of a task and can be built. Raises UserError for anything else."""
    name = getattr(found, "__qualname__", show(found))
    if not isinstance(found, type) or not issubclass(found, Task):
        is_class = isinstance(found, type)
        raise UserError.about(
            where,
            f"names {name}, which is no task",
            expected="a class that derives from sharpstudent.task.Task",
            got=f"a class of {found.__module__}" if is_class else f"a value of type {type(found).__name__}",
            remedy=f"write class {name}(Task), or name another class",
        )
    problems = [*_find_gaps(found, name, where), *check_own_terms(found.terms, name)]
    if problems:
        raise UserError(*problems)
    return found


def _find_gaps(found: type[Task], name: str, where: str) -> Iterator[Problem]:
    """Return a problem for each attribute or method that a task needs and this class lacks."""
    missing = sorted(cast(frozenset[str], getattr(found, "__abstractmethods__", frozenset())))
    if missing:
        what = f"names {name}, which lacks {', '.join(missing)}"
        yield Problem(where, what, expected="all of a task's methods", remedy="see sharpstudent/task.py")
    section: object = getattr(found, "Section", None)
    if isinstance(section, type) and issubclass(section, TaskSection):
        for key in sorted(set(section.shared_defaults) - set(FileKeys.model_fields)):
            what = f"names {name}, whose shared_defaults have a key that no config has: {key}"
            yield Problem(where, what, remedy="name a key of docs/config.md, Keys of every task")
    else:
        expected = "Section, a subclass of TaskSection; one without keys is `class Section(TaskSection): pass`"
        yield Problem(where, f"names {name}, which has no Section for its config keys", expected, remedy="add it")
    metrics: object = getattr(found, "metrics", None)
    if not isinstance(metrics, Mapping) or not metrics:
        expected = "metrics, by name; the first one selects"
        yield Problem(where, f"names {name}, which has no metrics", expected, remedy="add them")


def _explain_untrusted(name: str, where: str, remedy: str | None) -> Problem:
    return Problem(
        where,
        f"names the class {show(name)}, and a file does not decide what is imported",
        expected="the name of an installed task",
        got=show(name),
        remedy=remedy or f"if you know that code, name it, with its folder on PYTHONPATH: --task {shlex.quote(name)}",
    )


def _explain_unknown(name: str, known: Mapping[str, object], where: str) -> Problem:
    near = difflib.get_close_matches(name, known, n=1)
    return Problem(
        where,
        "is not a known task",
        expected=f"one of {', '.join(map(show, sorted(known)))}, or package.module:Class of your own",
        got=show(name),
        remedy=f"did you mean {show(near[0])}?" if near else "write one of these, or install the package that has it",
    )


def _explain_no_module(module: str, missing: str, where: str, folders: Sequence[Path]) -> Problem:
    places = [*map(str, folders), "the installed packages"]
    return Problem(
        where,
        f"names the module {module}, and there is no {missing}",
        expected=f"{missing.replace('.', '/')}.py or a folder of that name in {', or in '.join(places)}",
        remedy="correct the name, run from the folder of the module, or install its package",
    )


def _explain_broken(error: Exception, module: str, where: str, who: str) -> Problem:
    """Explain the exception of a module's import, with the lines of the traceback from that module on."""
    import traceback

    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith(_OF_THE_IMPORT)
    ]
    words = traceback.format_exception_only(error)
    file = frames[0].filename if frames else getattr(error, "filename", None)
    return Problem(
        f"{where}: {file or module}",
        f"{who} cannot be imported: {type(error).__name__}: {error}",
        got="".join([*traceback.format_list(frames), *words]).rstrip(),
        remedy="correct that file, or install what it needs",
    )


def _explain_no_class(module: Any, name: str, where: str) -> Problem:
    tasks = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, Task)]
    tasks = [key for key in tasks if vars(module)[key].__module__ == module.__name__]
    near = difflib.get_close_matches(name, [*tasks, *vars(module)], n=1)
    remedy = f"did you mean {module.__name__}:{near[0]}?" if near else "correct the name"
    place = module.__file__
    if place is None:  # a folder without __init__.py
        place = f"{next(iter(module.__path__))}, a folder of modules"
        remedy = f"name the module in it, too: {module.__name__}.MODULE:{name}"
    return Problem(
        where,
        f"names {name}, and {module.__name__} has nothing of that name",
        expected=f"one of {', '.join(tasks)}" if tasks else f"a subclass of Task in {place}",
        remedy=remedy,
    )
