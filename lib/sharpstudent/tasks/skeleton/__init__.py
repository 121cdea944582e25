"""The skeleton task: which action a moving skeleton does."""
