"""What a user may write and what a run is: keys of the JSON file, the resolved native form, the command line."""
