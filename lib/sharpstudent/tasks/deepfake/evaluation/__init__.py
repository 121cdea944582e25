"""Evaluates detectors: data sets of faces, metrics, thresholds, robustness to corruptions, and mistakes."""
