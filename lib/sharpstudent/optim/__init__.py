"""SAM over a base optimiser, parameter groups, clipping. Import the module you need; this file stays empty."""
