"""The built-in tasks, a package each. pyproject.toml registers them; sharpstudent/registry.py finds them by name."""
