"""Computes numbers from tables of rows: metrics, thresholds, curves, intervals over groups, paired tests.

The functions are pure: NumPy in, floats and arrays out. A task defines its metrics with `metrics.metric`;
`metrics.bootstrap` makes intervals.
"""
