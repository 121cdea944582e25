"""Wake words: whether one word was said in a window of sound.

Teachers hear the waveform, students the mel spectrogram of the same augmented window.
"""
