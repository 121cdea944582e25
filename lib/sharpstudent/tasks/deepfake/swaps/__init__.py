"""`make_swaps.py`: face swaps of a set of people."""
