"""Clauses as readable rules, and overlays: where in a picture the clauses speak for its class.

What a clause votes for is followed along the direct path: its votes, LayerScale, the weight of the last norm, the head.
So votes are known for the machine of the last block; a clause of any block is described by the pictures it answers to.

Legend: R pictures, N tokens, F features, C clauses, K classes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import make_folder, write_bytes_atomically, write_text_atomically
from sharpstudent.tasks.tokens.clauses import FuzzyPatternTM
from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer

SHOWN_LITERALS, SHOWN_CLAUSES = 12, 5


@dataclass(frozen=True)
class Rule:
    """One clause.

    Attributes:
        machine: The name of its machine in the model.
        clause: Its number there, from 0; the first half are the bank called positive.
        literals: The features it asks for, `f3` or `not f3`.
        mean: Its mean value over tokens of the pictures, 0..1.
        share: The share of the tokens for which it is above one half.
        place: Row and column of the token where it is largest on average, from 1; None where tokens are no grid.
        answers_to: The class whose pictures have the largest mean value.
        answer: That mean value.
        votes_for: The class that it votes for most along the direct path, and by how much; None for earlier blocks.
        votes_against: The class that it votes against most, likewise.
    """

    machine: str
    clause: int
    literals: tuple[str, ...]
    mean: float
    share: float
    place: tuple[int, int] | None
    answers_to: str
    answer: float
    votes_for: tuple[str, float] | None
    votes_against: tuple[str, float] | None

    def as_text(self) -> str:
        """Write the rule as a sentence."""
        shown = " and ".join(self.literals[:SHOWN_LITERALS]) or "nothing (it always holds)"
        more = f" and {len(self.literals) - SHOWN_LITERALS} more" if len(self.literals) > SHOWN_LITERALS else ""
        where = "" if self.place is None else f", most at row {self.place[0]}, column {self.place[1]}"
        votes = ""
        if self.votes_for is not None and self.votes_against is not None:
            (yes, much), (no, less) = self.votes_for, self.votes_against
            votes = f"; votes for {yes} ({much:+.2f}), against {no} ({less:+.2f})"
        return (
            f"clause {self.clause}: if {shown}{more}. Above one half for {self.share:.1%} of the tokens{where}; "
            f"answers most to {self.answers_to} ({self.answer:.2f}, to all {self.mean:.2f}){votes}"
        )


@torch.no_grad()
def collect_clauses(model: UnifiedTMTransformer, images: Tensor) -> dict[str, Tensor]:
    """Run a model on pictures (R, channels, S, S) and collect the clauses (R, N, C) of each machine by its name."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, given, result: found.__setitem__(name, result[1].detach())

    machines = [(name, one) for name, one in model.named_modules() if isinstance(one, FuzzyPatternTM)]
    hooks = [one.register_forward_hook(keep(name)) for name, one in machines]
    try:
        model.eval()(image=images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def compute_votes(model: UnifiedTMTransformer) -> Tensor:
    """Compute what each clause of the last block votes for along the direct path (K, C), of mean 0 over the classes."""
    block: Any = model.blocks[-1]
    if block.machine is None:
        raise UserError.about("the model", "has no Tsetlin machine whose clauses could be shown", "tm_vit or tm_swin")
    core = getattr(block.machine.core, "classifier", block.machine.core)
    effect = (model.head.weight * model.norm.weight) @ (core.voting * block.scale2).T
    return effect - effect.mean(0)


def list_rules(
    model: UnifiedTMTransformer, images: Tensor, labels: Sequence[int], classes: Sequence[str]
) -> list[Rule]:
    """Describe every clause by its literals, its votes, and the pictures that it answers to.

    Args:
        model: The model.
        images: Pictures (R, channels, S, S), such as those of the test.
        labels: Their classes.
        classes: The names of the classes.

    Returns:
        The rules, machine by machine.
    """
    votes, wanted = compute_votes(model).numpy(), np.asarray(labels)
    modules = dict(model.named_modules())
    found = collect_clauses(model, images)
    last = list(found)[-1]
    rules: list[Rule] = []
    for name, clauses in found.items():
        machine: Any = modules[name]
        values = clauses.numpy()
        of_class = np.stack([_average(values[wanted == k]) for k in range(len(classes))])
        for clause, literals in enumerate(_list_literals(machine)):
            best, column = int(of_class[:, clause].argmax()), votes[:, clause]
            sides: list[Any] = [(classes[int(k)], float(column[k])) for k in (column.argmax(), column.argmin())]
            rules.append(
                Rule(
                    machine=name,
                    clause=clause,
                    literals=literals,
                    mean=float(values[..., clause].mean()),
                    share=float((values[..., clause] > 0.5).mean()),
                    place=_find_place(values[..., clause].mean(0)),
                    answers_to=classes[best],
                    answer=float(of_class[best, clause]),
                    votes_for=sides[0] if name == last else None,
                    votes_against=sides[1] if name == last else None,
                )
            )
    return rules


def _average(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average clauses (R, N, C) over pictures and tokens (C,); 0 without pictures."""
    return values.mean((0, 1)) if len(values) else np.zeros(values.shape[2], np.float32)


def _list_literals(machine: FuzzyPatternTM) -> list[tuple[str, ...]]:
    with torch.no_grad():
        plain, negated = (mask.numpy() > 0.5 for mask in machine.masks())
    return [
        (*(f"f{f}" for f in np.flatnonzero(yes)), *(f"not f{f}" for f in np.flatnonzero(no)))
        for yes, no in zip(plain, negated, strict=True)
    ]


def lay_out(values: NDArray[Any]) -> NDArray[Any] | None:
    """Lay a value for each token (N,) out as their grid, without a class token; None where they are no square grid."""
    side = int(len(values) ** 0.5)
    return values[-side * side :].reshape(side, side) if side * side in (len(values), len(values) - 1) else None


def _find_place(values: NDArray[Any]) -> tuple[int, int] | None:
    grid = lay_out(values)
    if grid is None or grid.size == 1:
        return None
    row, column = np.unravel_index(int(grid.argmax()), grid.shape)
    return int(row) + 1, int(column) + 1


def write_rules(folder: Path, rules: Sequence[Rule]) -> list[Path]:
    """Write rules.json and rules.md, the clauses that vote most first; return the files."""
    make_folder(folder)
    ranked = sorted(rules, key=lambda one: -one.answer * (one.votes_for[1] if one.votes_for else 0.0))
    lines = [
        f"# {len(rules)} clauses",
        "",
        "A clause is 1 where all its literals hold, and less with each one that fails. `f3` is feature 3 of the layer",
        "that the machine reads, true where it is above 0. Votes are along the direct path to the logits.",
        "",
        *(f"- {rule.machine}, {rule.as_text()}" for rule in ranked),
    ]
    paths = [folder / "rules.json", folder / "rules.md"]
    write_text_atomically(paths[0], json.dumps([asdict(rule) for rule in rules], indent=1) + "\n")
    write_text_atomically(paths[1], "\n".join(lines) + "\n")
    return paths


@torch.no_grad()
def describe_pictures(
    model: UnifiedTMTransformer, images: Tensor, labels: Sequence[int], ids: Sequence[str], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Describe what the clauses of the last block say of each picture, as JSON values.

    Args:
        model: The model.
        images: Pictures (R, channels, S, S).
        labels: Their classes.
        ids: Their names.
        classes: The names of the classes.

    Returns:
        For each picture its id, label, prediction with probability, `evidence` (the votes of all clauses for the
        predicted class, by token as a grid), and the clauses that say most. A clause votes by how far its value is from
        its mean over the training pictures.
    """
    votes, usual = compute_votes(model), model.machines[-1].usage.running_mean
    clauses = list(collect_clauses(model, images).values())[-1]
    probabilities = model.eval()(image=images)["logits"].softmax(1)
    found: list[dict[str, Any]] = []
    for row, name in enumerate(ids):
        best = int(probabilities[row].argmax())
        said = (clauses[row] - usual) * votes[best]  # (N, C)
        strongest = said.mean(0).abs().argsort(descending=True)[:SHOWN_CLAUSES].tolist()
        grid = lay_out(said.sum(1).numpy())
        shown = [
            {"clause": c, "mean": float(clauses[row, :, c].mean()), "votes": float(said[:, c].mean())}
            for c in strongest
        ]
        found.append(
            {
                "id": name,
                "label": classes[labels[row]],
                "predicted": classes[best],
                "probability": float(probabilities[row, best]),
                "evidence": said.sum(1).tolist() if grid is None else grid.tolist(),
                "clauses": shown,
            }
        )
    return found


def write_overlays(folder: Path, images: Tensor, described: Sequence[dict[str, Any]]) -> list[Path]:
    """Write a picture and its data for each sample: `overlay_000.png` and `overlay_000.json`, and so on.

    Args:
        folder: The folder; it is made.
        images: The pictures (R, channels, S, S) in 0..1.
        described: What `describe_pictures` gave for them.

    Returns:
        The files.
    """
    make_folder(folder)
    paths: list[Path] = []
    for number, (image, one) in enumerate(zip(images, described, strict=True)):
        path = folder / f"overlay_{number:03}.png"
        write_bytes_atomically(path, draw_overlay(image.numpy(), one))
        write_text_atomically(path.with_suffix(".json"), json.dumps(one, indent=1) + "\n")
        paths += [path, path.with_suffix(".json")]
    return paths


def draw_overlay(image: NDArray[np.float32], described: dict[str, Any]) -> bytes:
    """Draw a picture (channels, S, S), the evidence over it, and its strongest clauses; returns a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    plain, over, bars = figure.subplots(1, 3)
    shown = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    extent = (0, shown.shape[1], shown.shape[0], 0)
    for axes in (plain, over):
        axes.imshow(shown, cmap="gray_r", vmin=0, vmax=1, extent=extent)
        axes.set_axis_off()
    plain.set_title(f"{described['id']}: {described['label']}")
    evidence = np.atleast_2d(np.array(described["evidence"]))
    most = float(np.abs(evidence).max()) or 1.0
    drawn = over.imshow(
        evidence, cmap="PuOr_r", vmin=-most, vmax=most, alpha=0.6, extent=extent, interpolation="nearest"
    )
    over.set_title(f"says {described['predicted']} ({described['probability']:.2f}): votes for it")
    figure.colorbar(drawn, ax=over, shrink=0.8)
    names = [f"clause {one['clause']}" for one in described["clauses"]]
    values = [one["votes"] for one in described["clauses"]]
    bars.barh(names, values, color=["#b35806" if value > 0 else "#542788" for value in values])
    bars.invert_yaxis()
    bars.axvline(0.0, color="black", linewidth=0.8)
    bars.set_title("strongest clauses")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
