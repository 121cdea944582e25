"""The training loss: pure terms, and their weighted sum."""
