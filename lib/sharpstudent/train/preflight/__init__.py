"""Checks before the first step of stage 2: student and teachers are evaluated, and problems become warnings."""
