"""What a trained model does with its inputs: heat maps of where it looks."""
