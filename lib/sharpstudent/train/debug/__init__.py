"""A skipped step, kept, taken again and looked at."""
