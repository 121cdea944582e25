"""What the training loss is made of: one pure term a file, and their weighted sum. Import the module you need."""
