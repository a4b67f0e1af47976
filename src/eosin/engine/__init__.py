"""The training loop and its parts, which know no method and no data set."""
