"""The wake-word guide's own code, commands and page, from its printed text; its config, key by key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from spoken_words import write_words
from workplace import ROOT, wait_for

sys.path.insert(0, str(ROOT / "tests/tasks/deepfake/report"))
from browser import Page, find_browser, start_browser  # pyright: ignore[reportMissingImports]

pytest.importorskip("soundfile", reason="soundfile is not installed: the extra wakeword")

COMPAT = ROOT / "compat" / "wakeword"
SEEDS = Path(os.environ.get("SEEDS", ROOT.parent / "shared" / "seeds"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join([str(COMPAT), os.environ.get("PYTHONPATH", "")])

CONFIG = """
from dataclasses import asdict
from pathlib import Path
import torch, warnings
from sharpstudent.core.errors import UserError
from src.config.defaults import DistillationConfig, WakewordConfig
from src.config.presets import get_esp32_no_psram_preset
from src.models.factory import create_model

own = DistillationConfig()
assert (own.enabled, own.teacher_architecture, own.teacher_model_path) == (False, "wav2vec2", "")
assert (own.temperature, own.alpha) == (2.0, 0.5)
config = get_esp32_no_psram_preset()
config.save("a.yaml")
assert asdict(WakewordConfig.load("a.yaml")) == asdict(config)
assert (config.data.n_mels, config.data.audio_duration, config.training.epochs) == (40, 1.0, 150)
assert config.qat.enabled and config.qat.backend == "qnnpack" and config.optimizer.mixed_precision
for alpha in (0.0, 0.2, 0.5, 0.7, 1.0):
    weighed = WakewordConfig(distillation=DistillationConfig(alpha=alpha)).list_terms()
    found = {one["term"]: one["weight"] for one in weighed}
    assert (found.get("hard", 0.0), found.get("kd", 0.0)) == (1.0 - alpha, alpha)
first = WakewordConfig().to_keys(Path("data"))
changes = {"distillation": {"temperature": 3.0, "alpha": 0.6}, "model": {"architecture": "gru", "dropout": 0.25},
           "training": {"batch_size": 16, "epochs": 5, "learning_rate": 0.002, "early_stopping_patience": 3},
           "data": {"sample_rate": 8000, "audio_duration": 1.0, "n_mels": 40,
                    "use_precomputed_features_for_training": True},
           "augmentation": {"background_noise_prob": 0.1, "rir_prob": 0.2},
           "optimizer": {"optimizer": "sgd", "weight_decay": 0.1, "scheduler": "constant", "gradient_clip": 0.5}}
for section, values in changes.items():
    for name, value in values.items():
        changed = WakewordConfig()
        setattr(getattr(changed, section), name, value)
        assert changed.to_keys(Path("data")) != first, (section, name)
for section, name, value in (("distillation", "alpha", 1.2), ("model", "num_classes", 3), ("model", "pretrained", True),
                             ("data", "feature_type", "mfcc"), ("distillation", "teacher_architecture", "hubert"),
                             ("data", "fallback_to_audio", False), ("qat", "backend", "tpu")):
    changed = WakewordConfig()
    setattr(getattr(changed, section), name, value)
    try:
        changed.check()
    except UserError as error:
        assert f"{section}.{name}" in error.as_text()
    else:
        raise AssertionError(name)
Path("b.yaml").write_text("model: {archtecture: gru}")
try:
    WakewordConfig.load("b.yaml")
except UserError as error:
    assert "archtecture" in error.as_text()
else:
    raise AssertionError("an unknown key")
model = create_model("mobilenetv3", num_classes=2, input_size=64)
assert sum(one.numel() for one in model.parameters()) == 1_519_618
assert model(torch.zeros(2, 1, 64, 151)).shape == (2, 2)
print("ALL KEYS")
"""

LOSS = """
import warnings
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from sharpstudent.core.errors import UserError
from src.config.defaults import WakewordConfig
from src.data.dataset import WakewordDataset
from src.models.factory import create_model
from src.training.checkpoint_manager import CheckpointManager
from src.training.distillation_trainer import DistillationTrainer
from src.training.trainer import Trainer

data = WakewordDataset("data/splits/train.json", return_raw_audio=True, augment=True)
sound, label, is_hard = data[0]
assert sound.shape == (24000,) and label in (0, 1) and is_hard in (0.0, 1.0)
assert WakewordDataset("data/splits/val.json")[0][0].shape == (1, 64, 151)
loader = DataLoader(data, batch_size=4)
config = WakewordConfig()
config.training.hard_negative_weight = 3.0
model = create_model("tiny_conv")
assert issubclass(DistillationTrainer, Trainer)
assert DistillationTrainer(model, loader, loader, config, CheckpointManager("checkpoints")).teacher is None
config.distillation.enabled, config.distillation.alpha, config.distillation.temperature = True, 0.6, 3.0
config.distillation.teacher_architecture = "speech_embedding"
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    trainer = DistillationTrainer(model, loader, loader, config, CheckpointManager("checkpoints"))
assert any("head is random" in str(one.message) for one in seen)
assert not any(one.requires_grad for one in trainer.teacher.parameters())
outputs, targets = torch.randn(4, 2, requires_grad=True), torch.tensor([0, 1, 0, 1])
teacher = torch.tensor([[0.4, 0.1]]).repeat(4, 1)
trainer.teacher = lambda inputs: {"logits": teacher}
hard = torch.tensor([1.0, 0, 0, 0])
found = trainer.compute_loss(outputs, targets, torch.randn(4, 24000), None, is_hard_negative=hard)
each = F.cross_entropy(outputs, targets, reduction="none")
student = (each * (1 + 2 * hard)).sum() / (1 + 2 * hard).sum()
ours, theirs = F.log_softmax(outputs / 3, 1), F.log_softmax(teacher / 3, 1)
soft = F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * 9
torch.testing.assert_close(found, 0.4 * student + 0.6 * soft)
for logits, temperature, printed in (([2.5, 0.1], 2.0, [0.77, 0.23]), ([0.95, 0.05], 3.0, [0.73, 0.27])):
    given = torch.tensor(logits) if temperature == 2.0 else torch.tensor(logits).log()
    torch.testing.assert_close(F.softmax(given / temperature, 0), torch.tensor(printed), atol=0.005, rtol=0)
for name, logits in (("teacher", outputs), ("student", outputs / 0)):
    trainer.teacher = lambda inputs: {"logits": teacher / 0 if name == "teacher" else teacher}
    try:
        trainer.compute_loss(logits, targets, torch.randn(4, 24000))
    except UserError as error:
        assert f"the logits of the {name} are no numbers" in error.as_text() and "temperature 2.0" in error.as_text()
    else:
        raise AssertionError(name)
assert set(trainer.metrics[-1]) == {"student_loss", "distillation_loss", "total_loss", "loss_ratio"}
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    alone = trainer.compute_loss(outputs, targets, torch.zeros(4, 1, 64, 151))
torch.testing.assert_close(alone, each.mean())
assert any("Teacher NOT called with spectrogram inputs" in str(one.message) for one in seen)
print("THE LOSS")
"""


INT8 = """
from torch.utils.data import DataLoader
from sharpstudent.deploy import gate
from src.config.defaults import WakewordConfig
from src.data.dataset import WakewordDataset
from src.models.factory import create_model
from src.training import trainer
from src.training.checkpoint_manager import CheckpointManager

config = WakewordConfig()
config.model.architecture, config.training.epochs, config.qat.enabled = "tiny_conv", 1, True
loaders = [DataLoader(WakewordDataset(f"data/splits/{split}.json"), batch_size=4) for split in ("train", "val")]
trainer.QAT_STEPS = 2
own = trainer.Trainer(create_model("tiny_conv"), *loaders, config, CheckpointManager("checkpoints"))
for reason in (None, "it is worse"):  # of so few recordings nothing can be said: the gate lets all pass, then nothing
    gate.Gate._find_reason = lambda *_: reason
    results = own.train()
    print("INT8", results["int8"], results["best_f1"])
"""


def run(words: list[str], folder: Path, timeout: float = 600) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=ENVIRONMENT, text=True, capture_output=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_every_key_of_the_guide_s_config_takes_effect_or_is_refused(tmp_path: Path) -> None:
    assert "ALL KEYS" in run(["-c", CONFIG], tmp_path)


def test_the_guide_s_loss_is_the_printed_formula_and_a_spectrogram_skips_the_teacher_with_a_warning(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    write_words(tmp_path / "data", speakers=4)
    assert "THE LOSS" in run(["-c", LOSS], tmp_path)


@pytest.mark.slow
def test_a_training_with_qat_ends_with_an_int8_file_or_with_the_reason_why_there_is_none(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: the extra export")
    (tmp_path / "data").mkdir()
    write_words(tmp_path / "data", speakers=4)
    out = run(["-c", INT8], tmp_path)
    first, second = [line.split()[1] for line in out.splitlines() if line.startswith("INT8")]
    assert (tmp_path / first).is_file()
    assert (tmp_path / first).with_suffix(".h").is_file()
    assert second == "None"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The guide's page on a free port, with small data beside it."""
    (tmp_path / "data").mkdir()
    write_words(tmp_path / "data", speakers=8)
    with (tmp_path / "out.txt").open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "src.ui.app", "--port", "0"], cwd=tmp_path, env=ENVIRONMENT, stdout=out, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(lambda: "http://" in (tmp_path / "out.txt").read_text(), server)
            yield (tmp_path / "out.txt").read_text().split()[1], server
        finally:
            server.terminate()
            server.wait()


def fetch(address: str, **form: str) -> str:
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(address, data, timeout=60) as answer:
        return answer.read().decode()


SMALL_FORM = {
    "data_folder": "data/splits", "model.architecture": "tiny_conv", "model.num_classes": "2", "model.dropout": "0.1",
    "training.batch_size": "8", "training.epochs": "1", "training.learning_rate": "0.001",
    "training.early_stopping_patience": "3", "training.num_workers": "0", "training.hard_negative_weight": "1.0",
    "data.sample_rate": "16000", "data.audio_duration": "1.0", "data.n_mels": "40", "data.n_fft": "400",
    "data.hop_length": "160", "data.feature_type": "mel", "data.fallback_to_audio": "true",
    "augmentation.background_noise_prob": "0.5", "augmentation.rir_prob": "0.0", "optimizer.optimizer": "adamw",
    "optimizer.weight_decay": "0.01", "optimizer.scheduler": "cosine", "optimizer.gradient_clip": "1.0",
    "distillation.teacher_model_path": "", "distillation.teacher_architecture": "wav2vec2",
    "distillation.temperature": "3.0", "distillation.alpha": "0.6", "qat.backend": "qnnpack",
}  # fmt: skip


def test_the_page_has_the_guide_s_panels_and_refuses_what_cannot_be_trained(
    page: tuple[str, subprocess.Popen[str]],
) -> None:
    address, _ = page
    shown = fetch(address)
    for words in ("Panel 2: Configuration", "Optimization &amp; Loss", "Advanced Optimization", "Enable Distillation",
                  "Teacher Arch", "Distillation Temp", "Distillation Alpha", "Panel 3: Training"):  # fmt: skip
        assert words in shown
    assert "distillation.alpha" in fetch(f"{address}start", **{**SMALL_FORM, "distillation.alpha": "1.5"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "elsewhere.example"}), timeout=60)


def read(page: Page, expression: str) -> Any:
    """The value of an expression; "" where the page reloads itself just then."""
    try:
        return page.evaluate(expression)
    except AssertionError as error:
        if "navigated" not in str(error):
            raise
        return ""


def fill(page: Page, **changes: str) -> None:
    """Fill in the form of the page."""
    given = json.dumps({**SMALL_FORM, **changes})
    page.evaluate(
        f"for (const [name, value] of Object.entries({given})) {{ const one = document.getElementsByName(name)[0]; "
        "if (one.type === 'checkbox') one.checked = value === 'true'; else one.value = value; }"
    )


def click(page: Page, button: str) -> None:
    """Click on a button by its words; the answer is a new page."""
    read(page, f"[...document.querySelectorAll('button')].find(one => one.textContent === {button!r})?.click()")


def read_state(page: Page) -> str:
    """What panel 3 says; "" while a page is being loaded."""
    return read(page, "document.getElementById('state')?.textContent ?? ''")


def stop(page: Page) -> str:
    """Click on Stop training, and say what panel 3 says then."""
    click(page, "Stop training")
    return read_state(page)


@pytest.mark.slow
@pytest.mark.skipif(find_browser() is None, reason="no Chromium here: make browser")
def test_a_training_is_started_watched_seen_to_end_and_stopped_on_the_page_in_a_browser(
    page: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    address, server = page
    program = find_browser()
    assert program is not None
    (tmp_path / "browser").mkdir()
    with start_browser(program, tmp_path / "browser") as browser:
        shown = browser.open_page()
        shown.open(address, width=900, scheme="light")
        fill(shown)
        click(shown, "Start training")
        wait_for(lambda: read_state(shown).startswith("Training"), server)
        wait_for(lambda: read_state(shown).startswith(("Finished", "Ended")), server)
        assert read_state(shown).startswith("Finished. Best F1 Score")  # the page reloads itself no more
        fill(shown, **{"training.epochs": "500"})
        click(shown, "Start training")
        wait_for(lambda: "Epoch 1/500" in read(shown, "document.body?.textContent ?? ''"), server)
        wait_for(lambda: stop(shown).startswith(("Stopped.", "Ended")), server)
        assert read_state(shown) == "Stopped. What was trained is kept."
        assert shown.list_complaints() == []


@pytest.mark.slow
def test_the_methods_and_examples_of_the_guide_run_from_its_own_text(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: the extra wav2vec2")
    guides = sorted(SEEDS.glob("002_*.txt"))
    if not guides:
        pytest.skip("the guide's text is not there: SEEDS names no folder with 002_*.txt")
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
             "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16}  # fmt: skip
    folder = tmp_path / "weights" / "wav2vec2-base-960h"
    model = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**small))
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(small))
    head = {"classifier.0.weight": torch.randn(256, 32), "classifier.0.bias": torch.zeros(256),
            "classifier.3.weight": torch.randn(2, 256), "classifier.3.bias": torch.zeros(2)}  # fmt: skip
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "models").mkdir()
    own = {f"wav2vec2.{name}": one for name, one in model.state_dict().items()}
    torch.save({"model_state_dict": {**own, **head}}, tmp_path / "checkpoints" / "custom_teacher_best.pt")
    (tmp_path / "data").mkdir()
    write_words(tmp_path / "data", speakers=8)
    out = run([str(Path(__file__).with_name("run_guide.py")), str(guides[0])], tmp_path, timeout=1500)
    for heading in ("### Example 1: alpha 0.6, T 3.0", "### Example 2: alpha 0.7, T 4.0",
                    "### Example 3: alpha 0.5, T 2.5", "#### Step 2: Load: alpha 0.6, T 3.0",
                    "### Method 2: alpha 0.6, T 3.0"):  # fmt: skip
        assert f"DONE {heading}" in out
    assert "Best F1 Score" in out
    assert (tmp_path / "models" / "mobilenet_distilled.onnx").is_file()
