"""Pure numbers about scores: AUC, accuracy, intervals over people. NumPy in, floats out. Import the module you need."""
