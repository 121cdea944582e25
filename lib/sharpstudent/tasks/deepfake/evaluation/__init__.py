"""Judging a detector: the data sets it is shown, and what is done to their faces."""
