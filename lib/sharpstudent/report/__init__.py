"""What a run tells its user: the console, logs and metrics files, TensorBoard, pictures, tables, and what to do next.

Nothing here is imported by the package itself, so that a table of results does not load matplotlib or TensorBoard.
"""
