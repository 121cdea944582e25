"""Students, frozen teachers, feature hooks and the strict loading of weights."""
