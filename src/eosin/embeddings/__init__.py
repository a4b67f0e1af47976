"""Embeddings: an encoder and a data set give a matrix, kept in a content-hashed cache."""
