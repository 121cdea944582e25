"""What a trained model costs, where it looks, and what it gets wrong."""
