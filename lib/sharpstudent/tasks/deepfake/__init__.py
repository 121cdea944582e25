"""Deepfake detection: real faces against fakes, by default self-blended ones."""
