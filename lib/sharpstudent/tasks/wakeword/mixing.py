"""What is done to a window of sound before teacher and student get it: speed, level, room, background, codec, masks.

Every random number comes from the generator of the sample.

Legend: S samples of a window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]
SMALLEST_POWER = 1e-10
MU = 255.0  # of the codec


def place_word(clip: Wave, length: int, shift: int) -> Wave:
    """Put a recording that is shorter than a window into it; of a longer one, take a window's part.

    Args:
        clip: float32, any length.
        length: S.
        shift: How many samples after the middle of the window the middle of the recording lies.

    Returns:
        float32 (S,), zeros beside the recording.
    """
    window = np.zeros(length, np.float32)
    start = (length - len(clip)) // 2 + shift
    first, last = max(0, start), min(length, start + len(clip))
    if last > first:
        window[first:last] = clip[first - start : last - start]
    return window


def measure_power(sound: Wave) -> float:
    """Measure the mean power of a sound (S,); that of a recording is the power of its word: clips are cut to it."""
    return float(np.dot(sound, sound)) / max(len(sound), 1)


def change_level(window: Wave, decibels: float) -> Wave:
    """Change the level of a window (S,), at most to full scale: it is never clipped."""
    factor = 10.0 ** (decibels / 20.0)
    loudest = float(np.abs(window).max())
    return window * np.float32(min(factor, 1.0 / loudest if loudest > 0.0 else factor))


def add_background(window: Wave, background: Wave, snr_db: float, *, level: float | None = None) -> Wave:
    """Mix background into a window at a ratio of mean powers.

    Args:
        window: float32 (S,).
        background: float32 (S,); digital silence changes nothing.
        snr_db: 10 log10(power of the window / power of the background) [dB].
        level: The mean power of the window, where that of its word alone is known; None to compute it.

    Returns:
        The sum (S,), scaled down where it would exceed full scale.
    """
    power = measure_power(window) if level is None else level
    noise = measure_power(background)
    if noise < SMALLEST_POWER or power < SMALLEST_POWER:
        return window
    mixed = window + background * np.float32(np.sqrt(power / noise / 10.0 ** (snr_db / 10.0)))
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def change_speed(sound: Wave, percent: int, length: int) -> Wave:
    """Play a sound faster or slower, pitch and formants with it, so that another voice says it (Ko et al. 2015).

    Args:
        sound: float32, any length.
        percent: The speed; 110 plays 110 samples in the time of 100.
        length: S.

    Returns:
        The first S samples, float32 (S,), zeros after the end of the sound.
    """
    from scipy.signal import resample_poly

    played = np.asarray(resample_poly(sound, 100, percent), np.float32)[:length]
    return np.pad(played, (0, length - len(played)))


def add_room(window: Wave, response: Wave) -> Wave:
    """Convolve a window with a room's response; its direct sound stays where it was, and its power too.

    Args:
        window: float32 (S,).
        response: float32, any length; its loudest value is the direct sound.

    Returns:
        float32 (S,).
    """
    from scipy.signal import oaconvolve

    direct = int(np.abs(response).argmax())
    wet = oaconvolve(window, response)[direct : direct + len(window)].astype(np.float32)
    before, after = measure_power(window), measure_power(wet)
    return wet if after < SMALLEST_POWER else wet * np.float32(np.sqrt(before / after))


def pass_codec(window: Wave) -> Wave:
    """Round a window (S,) to 8 bits on the scale of the mu-law (ITU-T G.711, equation 1 of its mu-law)."""
    folded = np.sign(window) * np.log1p(MU * np.minimum(np.abs(window), 1.0)) / np.log1p(MU)
    rounded = np.round((folded + 1.0) * 127.5) / 127.5 - 1.0
    return (np.sign(rounded) * np.expm1(np.abs(rounded) * np.log1p(MU)) / MU).astype(np.float32)


def mask_mel(mel: Wave, rng: np.random.Generator, *, most_frames: int, most_bands: int) -> Wave:
    """Blank one stretch of frames and one of bands (SpecAugment, Park et al. 2019), with the mean of the window.

    Args:
        mel: float32 (1, M, T).
        rng: Draws both stretches.
        most_frames: The longest stretch of frames; 0 for none.
        most_bands: The most bands; 0 for none.

    Returns:
        A copy with the blanks.
    """
    masked, mean = mel.copy(), mel.mean()
    for axis, most in ((2, most_frames), (1, most_bands)):
        size = int(rng.integers(0, min(most, mel.shape[axis]) + 1))
        start = int(rng.integers(0, mel.shape[axis] - size + 1))
        blank = [slice(None)] * 3
        blank[axis] = slice(start, start + size)
        masked[tuple(blank)] = mean
    return masked
