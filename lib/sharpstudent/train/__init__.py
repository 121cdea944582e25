"""The step, the loop, the evaluation, the run. Import the module you need; this file stays empty."""
