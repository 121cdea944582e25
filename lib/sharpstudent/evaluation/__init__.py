"""Evaluation and comparison of trained models on data sets."""
