"""Embeddings: an encoder and images give a matrix, kept under the hash of all it depends on."""

from eosin.embeddings.reading import ReadEmbeddings, read

__all__ = ["ReadEmbeddings", "read"]
