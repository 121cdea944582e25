"""The config: keys, validation, the command line of training, and one stage of one run, resolved."""
