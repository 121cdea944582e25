"""Trained models, and what they say of sets of samples."""
