"""Students, frozen teachers and the strict loading of weights. Import the module you need; this file stays empty."""
