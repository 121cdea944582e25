"""Plain sentences about results, and no more than the intervals allow."""
