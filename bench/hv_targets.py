"""HoVer-Net's targets of a 540-pixel window with an output of 164, against the authors' code.

    python -m bench.hv_targets --json [--peer CLONE]

The peer is a plain rendition of the published algorithm or, with `--peer`, `gen_targets` of a clone
of vqdang/hover_net. Ours makes the centred maps and the map of types besides. Before anything is
timed, our official maps are compared with the peer's: equal to the last bit, or the benchmark
fails. `--clock cpu` is for a busy machine.
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass, label

from bench import _hover_net
from bench._compare import Contestant, arguments, as_line, measure, show
from eosin.nuclei.targets import MIN_PX, make_targets

Map = NDArray[np.int32]
Targets = tuple[NDArray[np.float32], NDArray[np.integer]]
WIDENED_BY = 2


def split_parts(instances: Map) -> Map:
    """Gives every further connected part of a number a number of its own."""
    split = instances.copy()
    for number in np.unique(instances)[1:]:
        parts, count = label(instances == number)
        if count > 1:
            largest = split.max()
            split[parts > 1] = parts[parts > 1] + largest
    return split


def to_unit(distance: NDArray[np.float32]) -> None:
    """Scales what is below 0 to [-1, 0), and what is above to (0, 1]."""
    below, above = distance < 0, distance > 0
    if below.any():
        distance[below] /= -distance[below].min()
    if above.any():
        distance[above] /= distance[above].max()


def rendition(instances: Map, out_px: int) -> Targets:
    """The published algorithm: one nucleus after the other, each searched for in the window."""
    begin = (len(instances) - out_px) // 2
    middle = (slice(begin, begin + out_px),) * 2
    split = split_parts(instances)
    sizes = np.bincount(split[middle].ravel())
    hv = np.zeros((*instances.shape, 2), np.float32)
    for number in np.unique(split[middle]):
        if number == 0 or sizes[number] < MIN_PX:
            continue
        mask = split == number
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left = rows[0] - WIDENED_BY, columns[0] - WIDENED_BY
        if top < 0 or left < 0:
            continue
        box = (slice(top, rows[-1] + 1 + WIDENED_BY), slice(left, columns[-1] + 1 + WIDENED_BY))
        mask = mask[box]
        centre = [int(each + 0.5) for each in center_of_mass(mask)]
        ys, xs = np.mgrid[1 : mask.shape[0] + 1, 1 : mask.shape[1] + 1]
        for channel, distance in ((0, xs - centre[1]), (1, ys - centre[0])):
            inside = np.where(mask, distance, 0).astype(np.float32)
            to_unit(inside)
            hv[box][..., channel][mask] = inside[mask]
    foreground = (instances > 0).astype(np.uint8)
    return hv[middle], foreground[middle]


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--window", type=int, default=540, help="pixels")
    parser.add_argument("--output", type=int, default=164, help="pixels")
    parser.add_argument("--nuclei", type=int, default=220, help="drawn in the window")
    parser.add_argument("--runs", type=int, default=20, help="of ours, in each round")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    _hover_net.add_peer(parser)
    options = parser.parse_args()
    instances = _hover_net.draw_nuclei(options.window, options.nuclei, np.random.default_rng(0))
    count = int(instances.max())
    types = np.arange(count) % 4
    out_px: int = options.output

    peer: Callable[[], Targets] = lambda: rendition(instances, out_px)  # noqa: E731
    name = "plain rendition of HoVer-Net's targets"
    if options.peer:
        theirs = _hover_net.load(options.peer, "models.hovernet.targets")
        name = "vqdang/hover_net, gen_targets"

        def peer() -> Targets:
            made = theirs.gen_targets(instances, (out_px, out_px))
            return made["hv_map"], made["np_map"]

    hv, foreground = peer()
    ours = make_targets(instances, types, out_px, official=True)
    assert np.array_equal(ours.hv, np.moveaxis(hv, -1, 0)), "the maps differ"
    assert np.array_equal(ours.foreground, foreground), "the foregrounds differ"
    assert ours.hv.any()
    print(f"equal to the last bit: {count} nuclei, {float(foreground.mean()):.0%} of the output")

    def run_ours() -> None:
        for _ in range(options.runs):
            make_targets(instances, types, out_px)

    clock = time.perf_counter if options.clock == "wall" else time.process_time
    sides = [Contestant("eosin", run_ours), Contestant(name, peer)]
    times = measure(sides, rounds=options.rounds, clock=clock)
    times["eosin"] = [seconds / options.runs for seconds in times["eosin"]]
    line = as_line("hv_targets", "eosin", name, times)
    line |= {"window": options.window, "output": out_px, "nuclei": count, "clock": options.clock}
    show([line], as_json=options.json)


if __name__ == "__main__":
    main()
