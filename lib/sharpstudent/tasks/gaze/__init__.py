"""Gaze heat maps: where each person of a picture looks, by small models of the Gaze-LLE family."""
