"""Samples, their order, batches and splits; workers that make samples in other processes."""
