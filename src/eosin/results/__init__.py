"""Results: rows that describe themselves, their statistics and their tables."""
