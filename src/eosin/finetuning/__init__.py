"""Training all weights of an encoder with a new linear layer, on labelled images."""
