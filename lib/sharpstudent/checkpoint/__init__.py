"""Checkpoints on disk: whole files, the best epochs, and the state that a run resumes from."""
