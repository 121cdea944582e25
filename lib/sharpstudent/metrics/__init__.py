"""Pure numbers about scores: figures of frames and videos, thresholds, curves, intervals over people, paired tests.

NumPy in, floats and arrays out. Import the module you need; `metrics.figures` has all figures in one table.
"""
