"""Checkpoints on disk: writing and reading them, keeping the best epochs, and the state that a run resumes from."""
