"""Slides in, tiles out: readers, tissue, grid and the tile store; numpy and codecs only."""
