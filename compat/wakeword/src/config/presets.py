"""Presets of the wake-word guide."""

from __future__ import annotations

from src.config.defaults import DataConfig, ModelConfig, QATConfig, TrainingConfig, WakewordConfig


def get_esp32_no_psram_preset() -> WakewordConfig:
    """Build the config of a microcontroller without PSRAM: TinyConv, 40 bands, one second, int8."""
    return WakewordConfig(
        config_name="esp32_no_psram",
        description="TinyConv in int8 for an ESP32-S3 without PSRAM",
        model=ModelConfig(architecture="tiny_conv", dropout=0.2),
        training=TrainingConfig(epochs=150),
        data=DataConfig(audio_duration=1.0, n_mels=40),
        qat=QATConfig(enabled=True),
    )
