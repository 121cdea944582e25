"""The modules that the wake-word guide prints, as a thin layer over sharpstudent."""
