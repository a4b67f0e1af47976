"""Slides into a tile store: which tiles, cut by many processes, resumable."""
