"""One stage of training: the step, the loop, validation, saving, resuming and finishing."""
