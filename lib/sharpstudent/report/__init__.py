"""The output of runs and evaluations: console, logs, TensorBoard, charts, tables, report.html, advice.

The package imports none of its modules, so that a table of results loads neither matplotlib nor TensorBoard.
"""
