"""Checks a config of wake words before the first step: what is known to go wrong, each with a remedy.

    python -m sharpstudent.tasks.wakeword.check configs/wakeword.json [--set KEY=VALUE]

It takes the command line of main_distillation.py and trains nothing. After a run, `compare_models.py check RUN` reads
its files: losses that are no numbers, terms out of balance, a validation that does not improve.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sharpstudent.config.cli import parse_command_line
from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.archive import read_about
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.naming import printable_lines
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import ModelSpec
from sharpstudent.registry import find_task
from sharpstudent.tasks.wakeword.recording_chain import ChainProbe, probe_chain, refuse_chain
from sharpstudent.tasks.wakeword.speech_embedding import FETCH, FILES, FOLDER, SpeechEmbeddingClassifier
from sharpstudent.tasks.wakeword.task import RAW, WakewordTask

FOUND = 1  # the exit code
FIRST = Progress(1, 0, 1, 1)  # the step at which schedules are read
TEMPERATURES, SHARES = (2.0, 4.0), (0.3, 0.7)  # that are usual
SMALL, LARGE = 1000, 20_000  # training recordings: with fewer rely on the teacher, with more on the data
SMALL_SHARES, LARGE_SHARES = (0.6, 0.8), (0.3, 0.4)
STRONG, WEAK = 0.9, 0.8  # F1 of the teacher on its validation
STRONG_SHARES, WEAK_SHARES = (0.6, 0.8), (0.2, 0.4)
LEAST_MEMORY_GB = 8.0
LISTENERS_FOR_GPU = ("wav2vec2",)  # teachers that are too slow on a CPU


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        name: What was checked.
        seen: What was found.
        remedy: What to do; "" where nothing is wrong.
    """

    name: str
    seen: str
    remedy: str = ""


@dataclass(frozen=True)
class Setup:
    """What the checks look at.

    Attributes:
        share: The teacher's share of hard labels and logits together, 0..1; None without a term on its logits.
        temperature: Of that term; None without.
        features: `audio` or `precomputed`.
        teacher: The name of the teacher's architecture.
        teacher_file: Its checkpoint; None where there is none.
        teacher_error: Why it cannot be loaded; "" where it can.
        teacher_f1: On its own validation; None where it is not known.
        parameters: Of student and teacher, with the teacher's files that are no tensors of ours.
        gpu_gb: Memory of the GPU; None without one.
        precision: fp32, bf16 or fp16.
        recordings: For training, without background.
        chain: What the probe of recording chains found; None where nothing can be said.
    """

    share: float | None = 0.5
    temperature: float | None = 2.0
    features: str = "audio"
    teacher: str = "speech_embedding"
    teacher_file: Path | None = None
    teacher_error: str = ""
    teacher_f1: float | None = None
    parameters: tuple[int, int] = (60_530, 629_000)
    gpu_gb: float | None = None
    precision: str = "fp32"
    recordings: int = 2000
    chain: ChainProbe | None = None


def check_enabled(setup: Setup) -> Iterator[Finding]:
    """Whether anything is distilled."""
    if setup.share is None or setup.share == 0.0:
        remedy = 'a term {"term": "kd"} with a weight above 0 in stage2.terms (guide: distillation.enabled: true)'
        yield Finding("distillation enabled", "no term reads the teacher's logits", remedy)
    else:
        yield Finding("distillation enabled", "the teacher's logits are in the loss")


def check_temperature(setup: Setup) -> Iterator[Finding]:
    """Whether the temperature is usual; too high a one lets the loss become no number or say nothing."""
    if setup.temperature is not None:
        yield _check_range("temperature", setup.temperature, TEMPERATURES, "the temperature of kd")


def check_share(setup: Setup) -> Iterator[Finding]:
    """Whether the teacher's share is usual."""
    if setup.share:
        yield _check_range("alpha, the teacher's share", setup.share, SHARES, "the weights of hard and kd")


def check_share_for_data(setup: Setup) -> Iterator[Finding]:
    """Whether the share fits the size of the data and the strength of the teacher."""
    if not setup.share:
        return
    if setup.recordings < SMALL or setup.recordings > LARGE:
        limits = SMALL_SHARES if setup.recordings < SMALL else LARGE_SHARES
        name = f"alpha for {setup.recordings:,} recordings"
        yield _check_range(name, setup.share, limits, "the weights of hard and kd")
    if setup.teacher_f1 is not None and not WEAK <= setup.teacher_f1 < STRONG:
        limits = STRONG_SHARES if setup.teacher_f1 >= STRONG else WEAK_SHARES
        name = f"alpha for a teacher with F1 {setup.teacher_f1:.3f}"
        yield _check_range(name, setup.share, limits, "the weights of hard and kd")


def check_audio(setup: Setup) -> Iterator[Finding]:
    """Whether the teacher is given raw audio."""
    name = "raw audio (use_precomputed_features_for_training, fallback_to_audio, return_raw_audio)"
    if setup.features != "audio" and setup.teacher in RAW:
        yield Finding(name, "spectrograms are read from files, and the teacher hears none", "--set data.features=audio")
    else:
        yield Finding(name, "windows are cut from recordings, and the teacher hears them")


def check_teacher(setup: Setup) -> Iterator[Finding]:
    """Whether the teacher can be loaded, and how good it is."""
    if setup.teacher_file is None or setup.teacher_error:
        remedy = "python train_student_only.py configs/wakeword_teacher.json -n wakeword_teacher"
        yield Finding("teacher loaded", setup.teacher_error or "no trained head is named: it would teach noise", remedy)
        return
    yield Finding("teacher loaded", str(setup.teacher_file))
    yield Finding("teacher frozen", "by construction: no optimiser holds it, and it runs without gradients")
    if setup.teacher_f1 is not None:
        weak = "train its head longer or take a better one" if setup.teacher_f1 < WEAK else ""
        yield Finding("teacher good enough", f"F1 {setup.teacher_f1:.3f} on its validation", weak)


def check_sizes(setup: Setup) -> Iterator[Finding]:
    """Whether the student is smaller than the teacher."""
    student, teacher = setup.parameters
    seen = f"{student:,} and {teacher:,} parameters"
    yield Finding("student smaller than teacher", seen, "--set student=tiny_conv" if student >= teacher else "")


def check_hardware(setup: Setup) -> Iterator[Finding]:
    """Whether a large teacher has a GPU, its memory, and half precision."""
    if setup.teacher not in LISTENERS_FOR_GPU:
        yield Finding("hardware", f"{setup.teacher} needs no GPU")
        return
    if setup.gpu_gb is None:
        yield Finding("GPU", f"none; {setup.teacher} is slow on a CPU", "--set teacher=speech_embedding, or a GPU")
        return
    few = setup.gpu_gb < LEAST_MEMORY_GB
    remedy = "--set stage2.batch_size=16, or gradient_checkpointing of the teacher" if few else ""
    yield Finding("memory of the GPU", f"{setup.gpu_gb:.1f} GB", remedy)
    yield Finding("mixed precision", setup.precision, "--set precision=bf16" if setup.precision == "fp32" else "")


def check_chain(setup: Setup) -> Iterator[Finding]:
    """Whether the recording chain gives the word away."""
    if setup.chain is None:
        yield Finding("one recording chain", "too few recordings of people to say")
    elif setup.chain.gives_away:
        problem = refuse_chain(setup.chain).problems[0]
        yield Finding("one recording chain", problem.got or "", problem.remedy or "")
    else:
        yield Finding(
            "one recording chain", f"{setup.chain.alike:.0%} of the negatives sound like positives in silence"
        )


RULES: tuple[Callable[[Setup], Iterator[Finding]], ...] = (
    check_enabled,
    check_temperature,
    check_share,
    check_share_for_data,
    check_audio,
    check_teacher,
    check_sizes,
    check_hardware,
    check_chain,
)


def run_checks(setup: Setup) -> list[Finding]:
    """Apply all rules."""
    return [one for rule in RULES for one in rule(setup)]


def _check_range(name: str, value: float, limits: tuple[float, float], what: str) -> Finding:
    low, high = limits
    usual = f"{low:g} to {high:g}"
    if low <= value <= high:
        return Finding(name, f"{value:g}, within {usual}")
    return Finding(name, f"{value:g}; {usual} is usual", f"{'lower' if value > high else 'raise'} {what} to {usual}")


# --- Where the facts come from --------------------------------------------------------------------------------------


def read_setup(config: RunConfig, task: WakewordTask) -> Setup:
    """Collect what the checks look at from a config of stage 2, its files and its data.

    Raises:
        UserError: For data and models that training would refuse, too.
    """
    weights = {term.term: term.weight(FIRST) for term in config.criterion if term.term in ("hard", "kd")}
    kd = next((term for term in config.criterion if term.term == "kd"), None)
    total = sum(weights.values())
    setup = Setup(
        share=weights["kd"] / total if kd is not None and total > 0 else None,
        temperature=None if kd is None else kd.numbers["temperature"](FIRST),
        features=task.section.features,
        precision=config.compute.precision,
    )
    return _add_data(_add_teacher(setup, config, task), task)


def _add_teacher(setup: Setup, config: RunConfig, task: WakewordTask) -> Setup:
    import torch

    from sharpstudent.models.build import make_teacher_spec
    from sharpstudent.models.forward import count_parameters
    from sharpstudent.models.weights import find_fitting_weights

    gpu = torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else None
    student = task.build_student(ModelSpec(config.student.name, config.student.options, config.student.dropout))
    if not config.teachers:
        return replace(setup, gpu_gb=gpu, teacher_error="the config names no teacher")
    section = config.teachers[0]
    setup = replace(setup, gpu_gb=gpu, teacher=section.name)
    try:
        teacher = task.build_teacher(make_teacher_spec(section))
        sizes = (count_parameters(student), count_parameters(teacher) + _count_files(teacher))
        setup = replace(setup, parameters=sizes)
        if section.weights is None or not _has_files(teacher):
            return replace(setup, teacher_error="" if _has_files(teacher) else f"its files are not there: {FETCH}")
        path, _ = find_fitting_weights(section.weights, teacher, key="teacher_weights")
    except UserError as error:
        return replace(setup, teacher_error=error.as_text().replace("\n", "; "))
    about = read_about(path) if path.is_file() else None
    f1 = None if about is None else about.get("val_f1")
    missing = "" if path.exists() else f"{path} is not there"
    return replace(setup, teacher_file=path, teacher_error=missing, teacher_f1=f1)


def _list_files(teacher: object) -> list[Path]:
    """List the ONNX files that a teacher runs; none for one that is all tensors."""
    is_embedding = isinstance(teacher, SpeechEmbeddingClassifier)
    return [FOLDER / name for name in FILES] if is_embedding else []


def _has_files(teacher: object) -> bool:
    return all(path.is_file() for path in _list_files(teacher))


def _count_files(teacher: object) -> int:
    """Count the parameters in a teacher's ONNX files, which hold float32."""
    return sum(path.stat().st_size for path in _list_files(teacher) if path.is_file()) // 4


def _add_data(setup: Setup, task: WakewordTask) -> Setup:
    from sharpstudent.tasks.wakeword.clip_layouts import find_clips
    from sharpstudent.tasks.wakeword.clips import BACKGROUND, ROOMS, choose_word

    clips = choose_word(find_clips(task.section), task.section.word).take("train")
    count = sum(clip.category not in (BACKGROUND, ROOMS) for clip in clips)
    return replace(setup, recordings=count, chain=probe_chain(clips, task.section.sample_rate))


def main(argv: Sequence[str] | None = None) -> None:
    """Check the config that the command line names; exit with FOUND where something is to be done."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = parse_command_line([*words, *([] if "-n" in words else ["-n", "check"])], stage=2, find_task=find_task)
    task = WakewordTask(command.config.task_section, allow=command.config.allow)
    found = run_checks(read_setup(command.config, task))
    for one in found:
        mark = "warn" if one.remedy else "ok  "
        more = f"\n        try: {one.remedy}" if one.remedy else ""
        print(printable_lines(f"{mark}  {one.name}: {one.seen}{more}"))
    if any(one.remedy for one in found):
        sys.exit(FOUND)


if __name__ == "__main__":
    with exit_codes():
        main()
