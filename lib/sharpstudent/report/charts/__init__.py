"""Charts of the report: inline SVG, PNG and CSV of the same numbers."""
