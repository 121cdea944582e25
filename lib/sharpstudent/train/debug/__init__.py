"""Skipped steps: they are written to files, replayed, and inspected."""
