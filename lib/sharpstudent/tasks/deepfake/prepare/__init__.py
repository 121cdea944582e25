"""prepare_faces.py: makes face crops and their manifest from photos, videos and data sets, and checks such a set."""
