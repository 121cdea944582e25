"""Kinds of raw material, a package each: files become arrays. A modality knows neither config nor models."""
