"""Pure numbers about tables of rows: metrics, thresholds, curves, intervals over groups, paired tests.

NumPy in, floats and arrays out. A task names its metrics by `metrics.metric`; `metrics.bootstrap` makes intervals.
"""
