"""Part of the guide's own module tree: config."""
