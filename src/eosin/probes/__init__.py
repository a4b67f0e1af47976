"""Fitters on a matrix of embeddings: linear and k nearest neighbours."""
