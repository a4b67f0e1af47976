"""The tile store: tiles of many slides as one long array of images, and what is done with it."""
