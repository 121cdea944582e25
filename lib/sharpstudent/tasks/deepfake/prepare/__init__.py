"""From raw clips to face crops with a manifest. Import the module you need."""
