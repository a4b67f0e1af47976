"""Pre-training: from tiles to an exported encoder."""
