"""The comparison table of the two-stage guide, measured: teacher, student pre-trained, student + distillation."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.measure import BLENDS, Trained, find_run, load_trained, score_people, score_swaps
from lib.errors import exit_codes
from lib.files import write_text_atomically

REPORT = Path("output/demo_comparison.md")
ROWS = (
    ("Teacher", "demo_teacher_demo_teacher_*"),
    ("Student pre-trained", "demo_student_demo_*"),
    ("Student + distillation", "demo_distill_demo_*"),
)


def main() -> None:
    import torch

    from lib.engine.evaluate import measure_latency_ms
    from lib.engine.task import Scores
    from lib.metrics.auc import compute_auc_by_rank
    from lib.metrics.bootstrap import compute_interval_by_group, compute_paired_interval
    from lib.models.classifier import count_parameters
    from lib.report.comparison import ComparisonRow, to_json, to_markdown, to_rich
    from lib.report.console import build_console

    console = build_console()
    models: dict[str, Trained] = {name: load_trained(find_run(pattern)) for name, pattern in ROWS}
    rows: list[ComparisonRow] = []
    scores = {name: score_people(trained, "test") for name, trained in models.items()}
    swaps = {name: score_swaps(trained) for name, trained in models.items()}

    def show_auc(found: Scores) -> str:
        interval = compute_interval_by_group(compute_auc_by_rank, found.margin, found.labels, found.identities, seed=0)
        return f"{interval.value:.3f} [{interval.low:.2f}-{interval.high:.2f}]"

    for name, trained in models.items():
        latency = measure_latency_ms(
            trained.model, image_size=int(trained.about["image_size"]), device=torch.device("cpu")
        )
        rows.append(
            ComparisonRow(
                model=name,
                parameters=count_parameters(trained.model),
                val_auc=float(trained.about["val_auc"]),
                inference_ms=latency,
                extra={"Test AUC [95 %]": show_auc(scores[name]), "Face swaps [95 %]": show_auc(swaps[name])},
            )
        )
    before, after = scores[ROWS[1][0]], scores[ROWS[2][0]]
    gain = compute_paired_interval(
        compute_auc_by_rank, after.margin, before.margin, before.labels, before.identities, seed=0
    )
    people, swapped = len(set(before.identities)), swaps[ROWS[2][0]]
    architectures = [f"{name}: {trained.about['architecture']}" for name, trained in models.items()]
    notes = [
        "; ".join(architectures) + ".",
        f"Val AUC chose the checkpoints; test AUC is on {people} people that nothing was trained, tuned or chosen on "
        f"({BLENDS} self-blended pairs each, frame-level; intervals over people).",
        f"Face swaps: another kind of fake, never trained on: {int(swapped.labels.sum())} swaps of "
        f"{len(set(swapped.identities))} of these people against their own photos (docs/swaps.md).",
        f"Stage 2 against stage 1 on these people: {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}].",
        "Stage 2 also trained longer: docs/results.md holds it against hard labels for as many further steps.",
    ]
    console.print(to_rich(rows, title="Measured in this run"))
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)
    write_text_atomically(REPORT.with_suffix(".json"), to_json(rows))
    write_text_atomically(REPORT, to_markdown(rows) + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n")
    console.print(
        f"\nThe table: {REPORT}. Curves: {find_run(ROWS[2][1]).parents[1]}/logs/curves.png; what the models saw: "
        "first_batch.png beside it.",
        soft_wrap=True,
        highlight=False,
    )
    console.print(
        "Next: your own photos (README, 'Your own data'): copy configs/demo.json and set data_root.", soft_wrap=True
    )


if __name__ == "__main__":
    with exit_codes():
        main()
