"""The search for near-duplicates: pictures of the same tissue, altered, on both sides of a line.

Candidates are those with nearly the same perceptual hash in one of eight orientations, and the
nearest neighbours by a vector that forgets every turn and mirroring (`polar`). Each candidate is
then laid upon its partner, and counts where the fine structure agrees.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eosin.audit import alignment, hashing, polar
from eosin.audit.thumbnails import Thumbnails
from eosin.provenance import available_cores

Numbers = NDArray[np.int64]

CORRELATION = 0.8
"""Fine structure that agrees better than this is of the same tissue.

In LC25000 nearly all copies that are found have 0.85 and more, and other tissue up to 0.49; but
patches of PatchCamelyon that are glass with a few edges reach 0.70 by chance.
"""

_NEIGHBOURS = 16
_HASH_NEIGHBOURS = 8
_HASH_BITS = 10
_LEAST_FIT = 0.42
_QUERIES_AT_ONCE = 256
_PAIRS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two images of the same tissue."""

    query: int
    """Number of the image that should be new, as the test image is."""
    reference: int
    """Number of the image that it is like."""
    correlation: float
    turned_degrees: float
    mirrored: bool
    zoom: float
    hash_bits: int
    """How many of 63 bits of the perceptual hashes differ, in the best orientation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Described:
    """Thumbnails and what they are searched by."""

    thumbnails: Thumbnails
    hashes: hashing.Hashes
    spectra: polar.Spectra


def describe(thumbnails: Thumbnails) -> Described:
    """Computes all that two sets of thumbnails are compared by."""
    grey = thumbnails.grey
    return Described(
        thumbnails=thumbnails,
        hashes=hashing.hash_orientations(grey),
        spectra=polar.describe(grey),
    )


class Search:
    """Finds the images of a growing set of references that are near-duplicates of the queries.

    References come in parts, of which none is kept, so that memory does not grow with them. Of each
    query the best candidates so far set what a later one must exceed.

    Args:
        queries: the images that should be new.
        is_same_set: the references are the queries themselves; none is a duplicate of itself, and
            each pair is found once, from its later image.
        neighbours: candidates of each query that are looked at closely, at the least.
        correlation: from which a pair counts.
    """

    def __init__(
        self,
        queries: Described,
        *,
        is_same_set: bool = False,
        neighbours: int = _NEIGHBOURS,
        correlation: float = CORRELATION,
    ) -> None:
        self._queries, self._is_same_set = queries, is_same_set
        self._neighbours, self._correlation = neighbours, correlation
        self._similarities = np.full((len(queries.thumbnails), neighbours), -1, np.float32)

    def against(self, references: Described) -> list[Pair]:
        """Finds the pairs with some more references, the most alike first for each query."""
        size = len(self._queries.thumbnails)
        blocks = [
            slice(start, start + _QUERIES_AT_ONCE) for start in range(0, size, _QUERIES_AT_ONCE)
        ]
        with ThreadPoolExecutor(available_cores(), thread_name_prefix="audit") as pool:
            candidates = pool.map(lambda rows: self._candidates(rows, references), blocks)
            pairs = np.concatenate([*candidates, np.empty((0, 2), np.int64)])
            parts = [pairs[at : at + _PAIRS_AT_ONCE] for at in range(0, len(pairs), _PAIRS_AT_ONCE)]
            found = pool.map(lambda part: self._confirmed(part, references), parts)
            merged = [pair for part in found for pair in part]
        return sorted(merged, key=lambda pair: (pair.query, -pair.correlation, pair.reference))

    def _candidates(self, rows: slice, references: Described) -> Numbers:
        """Pairs of places in the queries and in the references [P, 2], none twice."""
        by_vector = self._neighbours_by_vector(rows, references)
        by_hash, _ = hashing.nearest_hashes(
            self._queries.hashes[rows], references.hashes[:, 0], _HASH_BITS, _HASH_NEIGHBOURS
        )
        found = [np.unique(np.concatenate(each)) for each in zip(by_vector, by_hash, strict=True)]
        pairs = [
            (rows.start + query, reference)
            for query, each in enumerate(found)
            for reference in each[each >= 0].tolist()
        ]
        return self._without_repeats(np.array(pairs, np.int64).reshape(-1, 2), references)

    def _neighbours_by_vector(self, rows: slice, references: Described) -> list[Numbers]:
        similarity = polar.similarity(self._queries.spectra, rows, references.spectra)
        if self._is_same_set:
            own = self._queries.thumbnails.numbers[rows][:, None]
            similarity[own <= references.thumbnails.numbers] = -1
        best = self._similarities[rows]
        count = min(self._neighbours, similarity.shape[1])
        at = np.argpartition(similarity, -count, axis=1)[:, -count:]
        values = np.take_along_axis(similarity, at, 1)
        is_better = values > best[:, :1]
        merged = np.sort(np.concatenate([best, values], 1), axis=1)
        self._similarities[rows] = merged[:, -self._neighbours :]
        return [each[better] for each, better in zip(at, is_better, strict=True)]

    def _without_repeats(self, pairs: Numbers, references: Described) -> Numbers:
        if not self._is_same_set:
            return pairs
        queries = self._queries.thumbnails.numbers[pairs[:, 0]]
        return pairs[queries > references.thumbnails.numbers[pairs[:, 1]]]

    def _confirmed(self, pairs: Numbers, references: Described) -> list[Pair]:
        ours, theirs = self._queries, references
        fits = polar.fit(ours.spectra.spectra[pairs[:, 0]], theirs.spectra.spectra[pairs[:, 1]])
        confirmed: list[Pair] = []
        for row in np.flatnonzero(fits.correlation > _LEAST_FIT).tolist():
            query, reference = pairs[row].tolist()
            start = polar.placement(
                int(fits.turn[row]), bool(fits.mirrored[row]), int(fits.shift[row])
            )
            aligned = alignment.align(
                ours.thumbnails.grey[query], theirs.thumbnails.grey[reference], start
            )
            if aligned.correlation < self._correlation:
                continue
            differing = ours.hashes[query] ^ theirs.hashes[reference, 0]
            confirmed.append(
                Pair(
                    query=int(ours.thumbnails.numbers[query]),
                    reference=int(theirs.thumbnails.numbers[reference]),
                    correlation=aligned.correlation,
                    turned_degrees=aligned.turned_degrees,
                    mirrored=aligned.mirrored,
                    zoom=aligned.zoom,
                    hash_bits=min(bits.bit_count() for bits in differing.tolist()),
                )
            )
        return confirmed


def join(parts: Sequence[Described]) -> Described:
    """Joins what was described in parts."""
    zooms = range(len(parts[0].spectra.queries))
    return Described(
        thumbnails=Thumbnails(
            numbers=np.concatenate([part.thumbnails.numbers for part in parts]),
            grey=np.concatenate([part.thumbnails.grey for part in parts]),
        ),
        hashes=np.concatenate([part.hashes for part in parts]),
        spectra=polar.Spectra(
            queries=tuple(np.concatenate([p.spectra.queries[z] for p in parts]) for z in zooms),
            references=tuple(
                np.concatenate([p.spectra.references[z] for p in parts]) for z in zooms
            ),
            spectra=np.concatenate([part.spectra.spectra for part in parts]),
        ),
    )


def group(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Joins pairs of names that share one into groups, the largest first."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for first, second in pairs:
        parent[root(first)] = root(second)
    groups: dict[str, list[str]] = {}
    for name in sorted(parent):
        groups.setdefault(root(name), []).append(name)
    return sorted(groups.values(), key=lambda each: (-len(each), each))
