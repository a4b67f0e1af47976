"""Exact nearest neighbours, against scikit-learn's brute force at its best.

    python -m bench.knn --json

Both search the same float32 vectors: a few dozen directions hold most of what varies, as in
embeddings, and noise is in all of them. scikit-learn gets unit vectors and the Euclidean distance,
which has the same order and is several times faster there than its cosine. The neighbours of a
sample of the queries are compared with those by float64.
"""

import time
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from bench import _memory
from bench._compare import Contestant, arguments, as_line, measure, show
from eosin.probes.knn import find_neighbours

Floats = NDArray[np.float32]


def make_data(queries: int, keys: int, dim: int) -> tuple[Floats, Floats]:
    """Queries [M, D] and keys [N, D]."""
    generator = np.random.default_rng(0)
    scale = (np.arange(1, dim + 1, dtype=np.float32) ** -0.7)[:, None]
    mix = scale * generator.standard_normal((dim, dim), dtype=np.float32)
    parts = [
        generator.standard_normal((min(8192, queries + keys - start), dim), dtype=np.float32) @ mix
        for start in range(0, queries + keys, 8192)
    ]
    vectors = np.concatenate(parts)
    return vectors[:queries], vectors[queries:]


def to_unit_length(vectors: Floats) -> Floats:
    """Divides each vector by its length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def recall(queries: Floats, keys: Floats, found: NDArray[np.int64], sample: int) -> float:
    """The share of neighbours found that are those by float64, of equals the first."""
    chosen = np.linspace(0, len(queries) - 1, sample).astype(int)
    hits = 0
    for row in chosen:
        query = queries[row].astype(np.float64)
        lengths = np.sqrt(np.einsum("nd,nd->n", keys, keys, dtype=np.float64))
        cosines = (keys @ query) / lengths / np.linalg.norm(query)
        best = np.argsort(-cosines.astype(np.float32), kind="stable")[: found.shape[1]]
        hits += len(np.intersect1d(best, found[row]))
    return hits / (sample * found.shape[1])


def extra_memory_mb(queries: int, keys: int, dim: int, k: int) -> float:
    """Greatest resident memory that a search adds to its inputs."""
    setup = f"""
from bench import knn as bench
bench.find_neighbours(*bench.make_data(64, 256, 16), 5)
queries, keys = bench.make_data({queries}, {keys}, {dim})
"""
    return _memory.extra_memory_mb(setup, f"bench.find_neighbours(queries, keys, {k})")


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "", rounds=3)
    parser.add_argument("--queries", type=int, default=32_768)
    parser.add_argument("--keys", type=int, default=262_144)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--sample", type=int, default=64, help="queries searched by float64")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="`cpu` on a busy machine"
    )
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    queries, keys = make_data(options.queries, options.keys, options.dim)
    # Compiles, if it never has been: enough for the way that many queries take.
    find_neighbours(queries[: 2**26 // options.keys + 4 * options.dim], keys, 5)
    peer = NearestNeighbors(n_neighbors=options.k, algorithm="brute", metric="euclidean")
    found: dict[str, NDArray[np.int64]] = {}

    def ours() -> None:
        found["ours"] = find_neighbours(queries, keys, options.k)[1]

    def sklearn() -> None:
        peer.fit(to_unit_length(keys))
        found["sklearn"] = peer.kneighbors(to_unit_length(queries))[1]

    names = ("eosin", f"scikit-learn {version('scikit-learn')}, Euclidean on unit vectors")
    sides = [Contestant(names[0], ours), Contestant(names[1], sklearn)]
    times = measure(sides, rounds=options.rounds, clock=clock, warm_up=False)
    share = recall(queries, keys, found["ours"], options.sample)
    assert share == 1, f"only {share:.4f} of the neighbours are those by float64"
    line = as_line("knn", names[0], names[1], times, count=options.queries, unit="queries/s")
    line |= {"queries": options.queries, "keys": options.keys, "dim": options.dim, "k": options.k}
    line |= {"recall": share, "clock": options.clock}
    line["sklearn_recall"] = recall(queries, keys, found["sklearn"], options.sample)
    line["extra_mb"] = extra_memory_mb(options.queries, options.keys, options.dim, options.k)
    print(f"recall {share}, scikit-learn's {line['sklearn_recall']:.4f}")
    print(f"memory beyond the inputs: {line['extra_mb']:.0f} MB")
    show([line], as_json=options.json)


if __name__ == "__main__":
    main()
