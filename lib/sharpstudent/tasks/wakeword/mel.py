"""The mel spectrogram that students read: the front end of training, of streaming and of a device alike.

    frames   a Hann window (periodic) of 400 samples every 160, the signal padded by reflection of 200 on both sides
    power    |rfft(frame)|^2, 201 bins from 0 to half the sample rate
    mel      power @ filters.T, triangles of height 1 between points that are even on the scale 2595 log10(1 + f / 700)
    dB       10 log10(max(mel, 1e-10)), and nothing more than 80 dB below the loudest value of the window
    input    (dB - MEAN) / DEVIATION, two constants

A window of S samples has S // 160 + 1 frames: 151 in 1.5 s of 16 kHz, 101 in 1 s.

Legend: S samples, T frames, M mel bands.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy import fft

N_FFT, HOP = 400, 160  # samples
FLOOR = 1e-10  # of a power, before its logarithm
TOP_DB = 80.0
MEAN, DEVIATION = -20.0, 25.0  # dB: about those of speech in -1..1, so that the input of a student is about -2..2


def count_frames(samples: int) -> int:
    """Count the frames of a window of so many samples."""
    return samples // HOP + 1


@functools.cache
def build_filters(n_mels: int, sample_rate: int) -> NDArray[np.float32]:
    """Build the triangular filters, as torchaudio does by default (HTK scale, no norm).

    Args:
        n_mels: M.
        sample_rate: Samples a second.

    Returns:
        The weights of the bins in each band, float32 (M, N_FFT // 2 + 1).
    """
    highest = 2595.0 * np.log10(1.0 + sample_rate / 2 / 700.0)
    points = 700.0 * (10.0 ** (np.linspace(0.0, highest, n_mels + 2) / 2595.0) - 1.0)
    bins = np.linspace(0.0, sample_rate / 2, N_FFT // 2 + 1)
    rising = (bins - points[:-2, None]) / (points[1:-1] - points[:-2])[:, None]
    falling = (points[2:, None] - bins) / (points[2:] - points[1:-1])[:, None]
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


@functools.cache
def _build_window() -> NDArray[np.float32]:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)


def compute_mel(waveform: NDArray[np.float32], n_mels: int, sample_rate: int) -> NDArray[np.float32]:
    """Compute the input of a student from a window of sound.

    Args:
        waveform: float32 (S,) in -1..1, of more than N_FFT // 2 samples.
        n_mels: M.
        sample_rate: Samples a second.

    Returns:
        float32 (1, M, T).
    """
    sound, side = waveform.astype(np.float32, copy=False), N_FFT // 2
    padded = np.concatenate([sound[side:0:-1], sound, sound[-2 : -side - 2 : -1]])
    step = padded.itemsize
    shape = (count_frames(len(sound)), N_FFT)
    frames = np.lib.stride_tricks.as_strided(padded, shape, (HOP * step, step), writeable=False)
    spectrum = np.asarray(fft.rfft(frames * _build_window(), axis=1))
    squares = np.square(spectrum.view(np.float32))  # real and imaginary parts take turns
    power = squares[:, ::2] + squares[:, 1::2]
    mel = build_filters(n_mels, sample_rate) @ power.T
    decibels = np.log10(np.maximum(mel, FLOOR, out=mel), out=mel)
    decibels *= 10.0
    np.maximum(decibels, decibels.max() - TOP_DB, out=decibels)
    decibels -= MEAN
    decibels /= DEVIATION
    return decibels[None]
