"""SAM over a base optimiser, parameter groups, clipping, averaged weights and the loss scale of fp16."""
