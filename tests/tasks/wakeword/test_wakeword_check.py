"""`check`: each cause of the guide's list on a constructed set-up, and none on a healthy one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sharpstudent.tasks.wakeword.check import Setup, run_checks
from sharpstudent.tasks.wakeword.recording_chain import ChainProbe

HEALTHY = Setup(teacher_file=Path("teacher.pth"), teacher_f1=0.87, chain=ChainProbe(0.55, 0.4, 400))
LISTENER = replace(HEALTHY, teacher="wav2vec2", gpu_gb=24.0, precision="bf16", parameters=(60_530, 94_569_090))

CAUSES = {
    "distillation enabled": (replace(HEALTHY, share=None), "stage2.terms"),
    "temperature": (replace(HEALTHY, temperature=10.0), "lower the temperature of kd to 2 to 4"),
    "alpha, the teacher's share": (replace(HEALTHY, share=0.95), "lower the weights of hard and kd to 0.3 to 0.7"),
    "alpha for 500 recordings": (replace(HEALTHY, recordings=500), "raise"),
    "alpha for 50,000 recordings": (replace(HEALTHY, recordings=50_000), "lower"),
    "alpha for a teacher with F1 0.970": (replace(HEALTHY, teacher_f1=0.97), "raise"),
    "alpha for a teacher with F1 0.700": (replace(HEALTHY, teacher_f1=0.7), "lower"),
    "teacher good enough": (replace(HEALTHY, teacher_f1=0.7), "train its head longer"),
    "raw audio": (replace(HEALTHY, features="precomputed"), "--set data.features=audio"),
    "teacher loaded": (replace(HEALTHY, teacher_file=None), "configs/wakeword_teacher.json"),
    "student smaller than teacher": (replace(HEALTHY, parameters=(11_000_000, 350_000)), "--set student=tiny_conv"),
    "GPU": (replace(LISTENER, gpu_gb=None), "--set teacher=speech_embedding"),
    "memory of the GPU": (replace(LISTENER, gpu_gb=4.0), "--set stage2.batch_size=16"),
    "mixed precision": (replace(LISTENER, precision="fp32"), "--set precision=bf16"),
    "one recording chain": (replace(HEALTHY, chain=ChainProbe(0.95, 0.02, 300)), "--set data.check_chain=false"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_each_cause_is_found_and_named_with_its_remedy(name: str) -> None:
    setup, remedy = CAUSES[name]
    found = {one.name: one for one in run_checks(setup) if one.remedy}
    (named,) = [one for title, one in found.items() if title.startswith(name)]
    assert remedy in named.remedy
    assert named.seen


@pytest.mark.parametrize("setup", [HEALTHY, LISTENER])
def test_a_healthy_set_up_gets_no_advice(setup: Setup) -> None:
    found = run_checks(setup)
    assert [one for one in found if one.remedy] == []
    assert len(found) >= 8
