"""`compile`: the step of a compiled student is that of the plain one, its names and its masks stay as they are."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sharpstudent.core.types import Batch
from sharpstudent.models.vision import TimmClassifier
from tiny_models import START, build_batch, make_step

ROOT = Path(__file__).resolve().parents[2]
HAS_COMPILER = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def make_pictures(seed: int) -> Batch:
    inputs = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return build_batch(inputs, torch.tensor([0, 0, 1, 1]))


def make_student(dropout: float) -> TimmClassifier:
    torch.manual_seed(5)
    return TimmClassifier("test_resnet", classes=2, dropout=dropout).train()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="needs a C++ compiler")
def test_a_compiled_student_takes_the_steps_of_the_plain_one() -> None:
    student = make_student(dropout=0.0)
    compiled = copy.deepcopy(student)
    names = list(compiled.state_dict())
    compiled.compile()
    steps = [make_step(model, lr=0.01) for model in (student, compiled)]
    for seed in range(2):
        one, other = (step(make_pictures(seed), START) for step in steps)
        assert one.ok
        assert other.loss == pytest.approx(one.loss, rel=1e-4)
        assert other.perturbed_loss == pytest.approx(one.perturbed_loss, rel=1e-3)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-3)
    assert list(compiled.state_dict()) == names
    ours, theirs = student.state_dict(), compiled.state_dict()
    for name in names:
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-3, atol=1e-4)
    assert {int(t) for name, t in theirs.items() if name.endswith("num_batches_tracked")} == {2}


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="needs a C++ compiler")
def test_a_compiled_student_draws_the_same_masks_in_both_passes_and_others_in_the_next_step() -> None:
    """With a radius of next to nothing the two losses differ by their masks, or not at all."""
    student = make_student(dropout=0.5)
    student.compile()
    step = make_step(student, rho=1e-9)
    step.optimizer.set_lr(0.0)
    results = [step(make_pictures(0), START) for _ in range(3)]
    for result in results:
        assert result.perturbed_loss == pytest.approx(result.loss, rel=1e-4)
    assert len({round(result.loss, 3) for result in results}) == 3


WITHOUT_COMPILER = """
import sys, torch
sys.path[:0] = [".", "tests/helpers"]
from tiny_models import START, are_identical, make_batch, make_step, make_student, take_snapshot
from tiny_runs import make_run
from sharpstudent.train.oom import MemoryRetry
from sharpstudent.core.errors import UserError

student = make_student()
student.depth = torch.nn.Identity()
student.compile()
step = make_step(student)
before = take_snapshot(step)
try:
    MemoryRetry(make_run(compile=True), step, 4)(make_batch(), START)
except UserError as error:
    print(are_identical(take_snapshot(step), before), error)
"""


@pytest.mark.slow
def test_a_missing_compiler_is_named_to_the_user(tmp_path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("CXX", "CC")}
    environment |= {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True "), done.stdout
    for words in ("torch.compile cannot compile this student here", "C++ compiler", "--set compile=false"):
        assert words in done.stdout
