"""Uses of a trained model other than evaluation: heat maps of where in a picture it sees evidence for a class."""
