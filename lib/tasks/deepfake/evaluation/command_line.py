"""The command lines of evaluate_model.py and compare_models.py; every mistake is a `UserError` with a remedy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from lib.errors import Problem, UserError
from lib.report.results import Role
from lib.tasks.deepfake.evaluation.command_options import add_options, build_parser
from lib.tasks.deepfake.evaluation.model_options import Wished, build_wishes, split_name
from lib.tasks.deepfake.evaluation.wishes import DataChoices, DataWish, EvaluationRequest

EVALUATE, COMPARE = "evaluate_model.py", "compare_models.py"
ROLES: dict[str, tuple[Role, str]] = {
    "--teacher": ("teacher", "the frozen teacher (FFc23.tar, a checkpoint, ...)"),
    "--before": ("before", "the student before distillation: a run of stage 1"),
    "--distilled": ("distilled", "the student after it: a run of stage 2"),
    "--control": ("control", "a student trained as many further steps on hard labels: tells what the teacher is worth"),
}

_EVALUATE_USAGE = f"""python {EVALUATE} MODEL... [--data SET...] [options]
       python {EVALUATE} output/RUN --data data/mine --split test"""
_EVALUATE_PURPOSE = """Judge trained models: figures by frame and by video, by source and by kind of fake, with
intervals over people, as a report that opens from disk, results.json, scores.csv, pictures and a model card."""
_COMPARE_USAGE = f"""python {COMPARE} --teacher MODEL --before MODEL --distilled MODEL [--control MODEL] [options]
       python {COMPARE} FIRST=output/RUN_A SECOND=output/RUN_B --data data/mine"""
_COMPARE_PURPOSE = """Hold models against each other on the same pictures: did distillation help, and is the student
lighter at all? The guide's table (Model | Parameters | Val AUC | Inference time) with cost, paired differences and
plain sentences."""


def parse_evaluate(argv: Sequence[str]) -> EvaluationRequest:
    """Arguments of evaluate_model.py (without the program's name). Raises UserError; `--help` exits 0."""
    parser = build_parser(EVALUATE, _EVALUATE_USAGE, _EVALUATE_PURPOSE)
    parser.add_argument("models", metavar="MODEL", nargs="+", help="models to judge, see below")
    add_options(parser, costs=False)
    read = parser.parse_args(list(argv))
    return _build_request(read, [_to_wished(word, "model") for word in read.models])


def parse_compare(argv: Sequence[str]) -> EvaluationRequest:
    """Arguments of compare_models.py (without the program's name). Raises UserError; `--help` exits 0."""
    parser = build_parser(COMPARE, _COMPARE_USAGE, _COMPARE_PURPOSE)
    parser.add_argument("models", metavar="MODEL", nargs="*", help="further models, see below")
    for option, (_, text) in ROLES.items():
        parser.add_argument(option, metavar="MODEL", help=text)
    add_options(parser, costs=True)
    read = parser.parse_args(list(argv))
    wished: list[Wished] = []
    for option, (role, _) in ROLES.items():
        word: str | None = getattr(read, option.removeprefix("--"))
        if word is not None:
            wished.append(_to_wished(word, role))
    wished += [_to_wished(word, "model") for word in read.models]
    if len(wished) < 2:
        raise UserError(
            Problem(
                "command line",
                "names fewer than two models: nothing can be compared",
                expected="two models or more, such as --before output/pretrain_... --distilled output/run_...",
                got="none" if not wished else str(wished[0][1]),
                remedy=f"name another model, or judge one alone: python {EVALUATE} MODEL",
            )
        )
    return _build_request(read, wished)


def _build_request(read: argparse.Namespace, wished: Sequence[Wished]) -> EvaluationRequest:
    models = build_wishes(read, wished)
    if not read.validation and (read.store or read.fpr):
        option = "--store" if read.store else "--fpr"
        raise UserError(Problem(option, "needs --validation SET: thresholds are chosen there", remedy="add it"))
    return EvaluationRequest(
        models=models,
        data=tuple(DataWish(path, name) for name, path in map(split_name, read.data)),
        choices=DataChoices(
            split=read.split,
            crops=read.crops,
            layout=read.layout,
            label=None if read.label is None else ("real", "fake").index(read.label),
            faces=read.faces,
            frames=read.frames,
            min_face=read.min_face,
        ),
        validation=tuple(DataWish(path, name) for name, path in map(split_name, read.validation)),
        fprs=tuple(read.fpr),
        store=read.store,
        robustness=None if read.robustness is None else tuple(name for name in read.robustness if name != "all"),
        robustness_faces=read.robustness_faces or None,
        costs=read.costs,
        heat_maps=read.heat_maps,
        rules=tuple(dict.fromkeys(read.video_rules)),
        rounds=read.rounds,
        device=read.device,
        workers=read.workers,
        batch_size=read.batch_size,
        out=read.out,
    )


def _to_wished(word: str, role: Role) -> Wished:
    name, path = split_name(word)
    return name, path, role
