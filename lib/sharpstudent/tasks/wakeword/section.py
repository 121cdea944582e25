"""Declares the wake-word task's own config keys. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from sharpstudent.config.run_config import Count, NotNegative, PathText, Share, TaskSection, usual

Decibels = Annotated[float, Field(ge=-30.0, le=60.0)]


class WakewordSection(TaskSection):
    """The keys that say where recordings come from, and how windows of them are made.

    A sample is a window of `duration` seconds. The student reads its mel spectrogram (1, `n_mels`, T), and a teacher
    the waveform of the same augmented window.
    """

    shared_defaults: ClassVar[Mapping[str, Any]] = {
        "student": "tiny_conv",
        "teacher": "speech_embedding",
        "optimizer": "adamw",
        "student_dropout": 0.2,
        "lr": 0.001,
    }

    data_root: PathText = Field(
        "data/wakeword",
        description="folder of the recordings: splits/{train,val,test}.json, a folder a class, or Speech Commands",
    )
    layout: Literal["auto", "splits", "folders", "speech_commands"] = Field(
        "auto",
        description="how `data_root` lies on disk; splits: JSON files that list the recordings of each split; folders: "
        "positive/, negative/, hard_negative/, background/ and rirs/; speech_commands: a folder a word",
    )
    word: str = Field(
        "",
        description="the wake word: the folder of the positives in Speech Commands; elsewhere, where recordings name "
        "their words, the word that is positive in place of the categories; empty: the categories say it",
    )
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.2,
        description="share of the speakers held out for validation, and as many for the test, where the data has no "
        "splits of its own",
        json_schema_extra=usual("too few speakers are left on one side", low=0.02, high=0.45),
    )
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        5, description="seed of that draw, and of the noise in evaluated windows"
    )
    features: Literal["audio", "precomputed"] = Field(
        "audio",
        description="audio: windows are cut from recordings; precomputed: mel spectrograms are read from the files in "
        "`npy_path` of the splits, which no teacher of raw audio can hear",
    )
    sample_rate: Annotated[int, Field(ge=8000, le=48000)] = Field(
        16000, description="samples a second that the models hear; recordings of one other rate are resampled"
    )
    duration: Annotated[float, Field(ge=0.25, le=10.0)] = Field(1.5, description="length of a window [s]")
    n_mels: Annotated[int, Field(ge=8, le=256)] = Field(64, description="bands of the mel spectrogram")
    windows_per_clip: Count = Field(
        3, description="most windows that an epoch takes of one recording that is longer than a window"
    )
    positive_share: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.25,
        description="training: recordings of the word are visited so often, each time augmented anew, that they are at "
        "least about this share of the windows; 0: once, as all others",
        json_schema_extra=usual("negatives are then hardly seen", high=0.6),
    )
    views: Annotated[int, Field(ge=0, le=10_000)] = Field(
        0,
        description="augmented variants of each training window: with 4, the same four recur, and the answers of a "
        "speech_embedding teacher to them are computed once; 0 draws a new one at every visit",
    )
    check_chain: bool = Field(
        True,
        description="refuse training data whose positives can be told from its negatives where nobody speaks: they "
        "come from other microphones or rooms",
    )
    teacher_cache: PathText | None = Field(
        None,
        description="folder in which the answers of the teacher speech_embedding to windows are kept from one run to "
        "the next; only windows that recur, see `views`, are found there. Default: in memory, for one run",
    )
    background_negatives: bool = Field(
        True, description="whether windows of background sound are negatives, beside being mixed into others"
    )
    hard_negative_weight: NotNegative = Field(
        1.0, description="weight in the terms on labels of a window of a hard negative; others have 1"
    )
    mined: PathText | None = Field(
        None,
        description="folder of false alarms that `sharpstudent mine` wrote: further hard negatives for training",
    )
    shift: NotNegative = Field(
        0.1, description="training: the word lies up to so many seconds before or after the middle of the window"
    )
    speed: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.0,
        description="training: the window is played up to this share faster or slower, in steps of a hundredth, pitch "
        "with it, so that one voice stands for several",
        json_schema_extra=usual("voices sound like no person's", high=0.25),
    )
    gain_db: NotNegative = Field(6.0, description="training: the level is changed by up to so many decibels")
    background_noise_prob: Share = Field(
        0.5, description="training: share of the windows with background sound in them"
    )
    snr_low: Decibels = Field(0.0, description="lowest ratio of the window's level to that of the background [dB]")
    snr_high: Decibels = Field(20.0, description="highest ratio of the window's level to that of the background [dB]")
    rir_prob: Share = Field(0.0, description="training: share of the windows in which a room response is heard")
    codec_prob: Share = Field(0.0, description="training: share of the windows that pass an 8-bit telephone codec")
    time_mask: NotNegative = Field(
        0.0,
        description="training: SpecAugment, longest stretch of time that is blanked in the student's input [s]; it is "
        "drawn at every visit, also where `views` recur",
    )
    mel_mask: Annotated[int, Field(ge=0)] = Field(
        0, description="training: SpecAugment, most neighbouring mel bands that are blanked"
    )

    @property
    def samples(self) -> int:
        """Samples of a window."""
        return round(self.sample_rate * self.duration)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.snr_low > self.snr_high:
            what = {
                "what": f"is above snr_high: {self.snr_low:g} and {self.snr_high:g}",
                "expected": "snr_low at most snr_high",
                "remedy": "swap the two numbers",
            }
            raise PydanticCustomError("own_words", "{what}", what)
        return self
