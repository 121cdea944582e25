"""Uses of a trained model beyond its metrics: heat maps of where in a picture it sees evidence for a class."""
