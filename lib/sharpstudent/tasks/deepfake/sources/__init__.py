"""Where faces come from: one file a source, each giving `Face` records by split. Import the module you need."""
