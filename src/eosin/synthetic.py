"""Synthetic H&E-like slides whose tissue classes differ in architecture and not in colour.

A slide is drawn as concentrations of two stains, evened out over the classes; then a laboratory of
its own stains and scans it. None of it is real tissue.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from eosin import atomic
from eosin.errors import InputError, UsageError

Floats = NDArray[Any]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]

_STAINS = np.array([(0.71, 0.77, 0.32), (0.05, 0.52, 0.15)])
_TURN = 2 * np.pi
_LABELLED_SEEDS = 10_000
CLASSES: tuple[str, ...] = ("glands", "lymphoid", "solid", "stroma", "villous")
"""The tissue classes, in the order of their numbers in a class map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideSpec:
    """What to draw; equal specs give equal pixels."""

    seed: int
    """Chooses the tissue and the laboratory."""
    width_px: int = 2048
    height_px: int = 2048
    mpp: float = 0.5
    """Micrometres per pixel of level 0; what is drawn keeps its size in micrometres."""

    def __post_init__(self) -> None:
        if min(self.width_px, self.height_px) * self.mpp < 250:
            raise UsageError(f"{self} is too small to draw tissue; give it 250 µm a side.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticSlide:
    """A drawn slide `[H, W, 3]` with its truth `[H, W]` at `mpp` micrometres per pixel."""

    rgb: Bytes
    class_map: Bytes
    """0 for glass, `1 + CLASSES.index(name)` for tissue."""
    instance_map: Ints
    """0 for no nucleus, else its number from 1."""
    mpp: float


class _Canvas:
    """One region's architecture, drawn in pixels, `um` of which make a micrometre."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], um: float) -> None:
        self.rng, self.shape, self.um = rng, shape, um
        self.nuclei: list[Floats] = []
        self.epithelium, self.lumen = np.zeros((2, *shape), np.uint8)
        u, v = np.tensordot(_axes(rng.uniform(0, np.pi)), np.indices(shape)[::-1], 1)
        self.v = v + 9 * um * _noise(rng, shape, 65 * um)
        self.normal = np.arctan2(*np.gradient(self.v))
        threads = rng.normal(0, 1.4, (512, 512)).astype(np.float32)
        at = np.stack([u / (26 * um), self.v / (1.7 * um)]).astype(np.float32)
        self.fibres = cv2.remap(threads, at[0], at[1], cv2.INTER_CUBIC, None, cv2.BORDER_WRAP)

    def lattice(self, spacing_um: float, jitter: float) -> Floats:
        """Jittered hexagonal points over the canvas, turned at random."""
        size, step = np.array(self.shape[::-1]), spacing_um * self.um
        reach = int(np.hypot(*size) / step / 1.7) + 2
        column, row = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
        xy = np.stack([column + 0.5 * (row % 2), row * 0.866], -1)
        xy += self.rng.normal(0, jitter, xy.shape)
        xy = xy @ _axes(self.rng.uniform(0, np.pi)) * step + size / 2
        return xy[((xy > -step) & (xy < size + step)).all(1)]

    def add_nuclei(
        self, xy: Floats, axes_um: Any, angle: Any, spread: float, clear: float = 0
    ) -> None:
        """Adds a row per nucleus: x, y, half axes, angle, density, clearing of the centre."""
        vary = self.rng.normal(0, (spread, 0.1, 0.15), (len(xy), 3))
        axes = self.um * np.array(axes_um) * np.exp(vary[:, :1] + vary[:, 1:2] * (1, -1))
        density = self.rng.uniform(0.75, 1.1, len(xy))
        rows = (xy, axes, angle + vary[:, 2], density, np.full(len(xy), clear))
        self.nuclei.append(np.column_stack(rows))

    def add_spindles(self, spacing_um: float) -> None:
        """Adds spindle nuclei along the fibres, wherever there is no epithelium."""
        xy = self.lattice(spacing_um, 0.25)
        xy = xy[_sample(self.epithelium, xy) == 0]
        self.add_nuclei(xy, (6.0, 1.8), _sample(self.normal, xy) + np.pi / 2, 0.15)

    def blob(self, radius_um: float, squeeze: float) -> Floats:
        """A wobbly closed outline round the origin, `[48, 2]`."""
        oval = _ovals(self.rng, 1, 48, (0.045, 0.03, 0.022))[0] * (1, squeeze)
        return oval @ _axes(self.rng.uniform(0, np.pi)) * radius_um * self.um

    def draw_glands(self) -> None:
        """Rings of tall nuclei round a lumen, in a cellular stroma."""
        rng = self.rng
        for centre in self.lattice(56, 0.08):
            radius_um = rng.uniform(20, 27)
            ring = self.blob(radius_um, rng.uniform(0.72, 1))
            _fill(self.epithelium, centre + ring)
            _fill(self.lumen, centre + ring * rng.uniform(0.25, 0.45))
            at = np.arange(0, 48, 48 * 5 / radius_um / _TURN)
            at += rng.normal(0, 0.25, len(at))
            spokes = np.stack(
                [np.interp(at, np.arange(48), side, period=48) for side in ring.T], -1
            )
            xy = centre + spokes * rng.normal(0.76, 0.05, (len(at), 1))
            self.add_nuclei(xy, (4.3, 2.3), np.arctan2(spokes[:, 1], spokes[:, 0]), 0.12, 0.2)
        self.add_spindles(16)

    def draw_lymphoid(self) -> None:
        """Sheets of small round nuclei with sinus-like gaps."""
        self.lumen[_noise(self.rng, self.shape, 18 * self.um) > 1.45] = 255
        self.add_nuclei(self.lattice(8.6, 0.17), (2.7, 2.4), self.rng.uniform(0, np.pi), 0.08)

    def draw_solid(self) -> None:
        """Nests of large pleomorphic nuclei between thin septa and clefts."""
        for centre in self.lattice(78, 0.1):
            nest = self.blob(38, 0.95)
            _fill(self.lumen, centre + nest)
            _fill(self.lumen, centre + nest * 0.93 + self.rng.normal(0, 1.2 * self.um, 2), 0)
            _fill(self.epithelium, centre + nest * 0.95)
        xy = self.lattice(13.3, 0.16)
        xy = xy[_sample(self.epithelium, xy) > 0]
        self.add_nuclei(xy, (4.6, 3.7), self.rng.uniform(0, np.pi, len(xy)), 0.22, 0.7)
        self.add_spindles(12)

    def draw_stroma(self) -> None:
        """Bundles of fibres with spindle nuclei along them, and clefts."""
        self.lumen[self.fibres + _noise(self.rng, self.shape, 30 * self.um) > 2.1] = 255
        self.add_spindles(10.7)

    def draw_villous(self) -> None:
        """Wavy fronds: a fibrous core, nuclei along both edges, and clefts."""
        depth = np.cos(self.v * (_TURN / 46 / self.um)) + 0.12 * _noise(
            self.rng, self.shape, 25 * self.um
        )
        self.lumen[depth < -0.93] = 255
        self.epithelium[depth < 0.8] = 255
        xy = self.lattice(5.0, 0.14)
        xy = xy[np.abs(_sample(depth, xy) + 0.25) < 0.42]
        self.add_nuclei(xy, (4.3, 2.3), _sample(self.normal, xy), 0.12, 0.2)


def render_slide(spec: SlideSpec) -> SyntheticSlide:
    """Draws one slide: tissue of all classes on white glass, with its class map and nuclei."""
    rng = np.random.default_rng(spec.seed)
    regions, numbers = _lay_out(rng, spec)
    class_map = np.array([0, *numbers], np.uint8)[regions]
    parts = np.zeros((4, *regions.shape), np.float32)
    parts[3] = regions > 0
    nuclei: list[Floats] = []
    um = float(np.exp(rng.normal(0, 0.06))) / spec.mpp
    for region, number in enumerate(numbers, 1):
        x, y, w, h = cv2.boundingRect((regions == region).astype(np.uint8))
        inside = regions[y : y + h, x : x + w] == region
        canvas = _Canvas(rng, (h, w), um * float(np.exp(rng.normal(0, 0.04))))
        getattr(canvas, f"draw_{CLASSES[number - 1]}")()
        drawn = np.stack([canvas.epithelium / 255, canvas.lumen / 255, canvas.fibres])
        np.copyto(parts[:3, y : y + h, x : x + w], drawn, "same_kind", where=inside)
        rows = np.concatenate(canvas.nuclei)
        rows = rows[((rows[:, :2] >= 0) & (rows[:, :2] < (w, h))).all(1)]
        nuclei.append(rows[_sample(inside & (canvas.lumen == 0), rows)] + (x, y, 0, 0, 0, 0, 0))
    instance_map, look = _draw_nuclei(rng, np.concatenate(nuclei), regions.shape)
    stains = _concentrations(rng, 1 / spec.mpp, parts, look[:, instance_map])
    rgb = _stain_and_scan(rng, stains, class_map * (cv2.GaussianBlur(parts[1], (0, 0), 1) < 0.02))
    return SyntheticSlide(rgb=rgb, class_map=class_map, instance_map=instance_map, mpp=spec.mpp)


def _lay_out(rng: np.random.Generator, spec: SlideSpec) -> tuple[Bytes, list[int]]:
    """Tissue with an organic outline, cut into regions of about equal area; each one's class."""
    shape = -(-spec.height_px // 4), -(-spec.width_px // 4)
    unit = min(shape)
    yx = np.indices(shape, np.float32)
    centred = yx * (2 / np.array(shape, np.float32))[:, None, None] - 1
    u, v = np.abs(np.tensordot(_axes(rng.uniform(0, np.pi)), centred, 1)) ** 2.6
    edge = 0.8 + 0.13 * _noise(rng, shape, unit / 4) + 0.03 * _noise(rng, shape, unit / 30)
    tissue = (u + v * rng.uniform(1, 1.4) < edge) & (np.abs(centred).max(0) < 0.97)
    repeats = max(1, round(float(tissue.sum()) * (4 * spec.mpp) ** 2 / len(CLASSES) / 290**2))
    numbers = [int(n) for _ in range(repeats) for n in 1 + rng.permutation(len(CLASSES))]
    points = np.argwhere(tissue)[:: max(1, int(tissue.sum()) // 3000)]
    sites = rng.choice(points, len(numbers), replace=False)
    for _ in range(8):  # Lloyd's algorithm evens out the areas.
        nearest = ((points[:, None] - sites) ** 2).sum(-1).argmin(1)
        sites = np.stack([points[nearest == i].mean(0) for i in range(len(sites))])
    yx += np.stack([_noise(rng, shape, unit / 9) for _ in yx]) * np.float32(unit / 28)
    distance = np.stack([((yx - site[:, None, None]) ** 2).sum(0) for site in sites])
    regions = ((1 + distance.argmin(0)) * tissue).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    regions = np.asarray(cv2.medianBlur(regions, 9), np.uint8)
    return regions[: spec.height_px, : spec.width_px], numbers


def _draw_nuclei(rng: np.random.Generator, rows: Floats, shape: Any) -> tuple[Ints, Floats]:
    """The instance map without nuclei that others hide; density and clearing by number."""
    rim = _ovals(rng, len(rows), 16, (0.05, 0.05)) * rows[:, None, 2:4]
    outlines = rim @ np.moveaxis(_axes(rows[:, 4]), -1, 0) + rows[:, None, :2]
    drawn = np.zeros(shape, np.int32)
    for number, outline in enumerate(outlines, 1):
        _fill(drawn, outline, number)
    area = np.bincount(drawn.ravel(), minlength=len(rows) + 1)[1:]
    seen = area > 0.6 * np.pi * rows[:, 2] * rows[:, 3]
    renumbered = np.concatenate([[0], np.where(seen, seen.cumsum(), 0)]).astype(np.int32)
    return renumbered[drawn], np.pad(rows[seen, 5:].T, ((0, 0), (1, 0))).astype(np.float32)


def _concentrations(rng: np.random.Generator, um: float, parts: Floats, look: Floats) -> Floats:
    """Haematoxylin and eosin, `[2, H, W]`, composed from what was drawn."""
    granules, clouds = (_noise(rng, parts.shape[1:], length * um) for length in (0.8, 7))
    epithelium, lumen, fibres, tissue = (cv2.GaussianBlur(part, (0, 0), 0.5 * um) for part in parts)
    inside = (look[0] > 0).astype(np.float32)
    centre = cv2.GaussianBlur(inside, (0, 0), 1.3 * um) ** 2
    chromatin = look[0] * (1 + 0.2 * granules) * (1 - look[1] * centre)
    haematoxylin = 0.1 + 0.07 * epithelium + 0.03 * clouds + 0.02 * granules + chromatin
    fibrous, cytoplasm = 0.75 + 0.3 * fibres, 0.65 + 0.08 * clouds
    eosin = np.maximum(fibrous + epithelium * (cytoplasm - fibrous) + 0.05 * granules, 0.05)
    drawn, focus = (1 - lumen) * tissue, rng.uniform(0.25, 0.45) * um
    stains = (np.maximum(stain, 0) * drawn for stain in (haematoxylin, eosin * (1 - 0.45 * inside)))
    return np.stack([cv2.GaussianBlur(stain, (0, 0), focus) for stain in stains])


def _stain_and_scan(rng: np.random.Generator, stains: Floats, class_map: Floats) -> Bytes:
    """Evens the stains out over the classes (not 0), then dyes and scans as one laboratory."""
    shares = np.linspace(0, 1, 129)
    for stain in stains:
        wanted = np.quantile(stain[class_map > 0][::7], shares)
        for inside in (class_map == number for number in range(1, len(CLASSES) + 1)):
            values = stain[inside]
            stain[inside] = np.interp(values, np.quantile(values[::3], shares), wanted)
    dyes = np.clip(_STAINS + rng.normal(0, (0.085, 0.04), (3, 2)).T, 0.01, None)
    dyes *= np.exp(rng.normal(0, 0.25, (2, 1)))
    stains = stains * (1 + 0.06 * _noise(rng, stains.shape[1:], min(stains.shape[1:]) / 5))
    layers = np.stack([*stains, np.ones_like(stains[0])], -1)
    white = np.log(rng.uniform(232, 248) + rng.uniform(-1.5, 1.5, 3))
    light = cv2.exp(cv2.transform(layers, np.column_stack([-dyes.T, white]).astype(np.float32)))
    grain = rng.standard_normal(light.shape, np.float32) * np.float32(rng.uniform(0.5, 1.5))
    return np.asarray(cv2.add(light, grain, dtype=cv2.CV_8U), np.uint8)


def write_slide(path: Path, slide: SyntheticSlide) -> None:
    """Writes a pyramidal TIFF of 256-px JPEG tiles; its resolution tags carry the mpp."""
    tags: dict[str, Any] = {"tile": (256, 256), "compression": "jpeg", "subsampling": (2, 2)}
    tags |= {"photometric": "rgb", "compressionargs": {"level": 90}, "metadata": None}
    tags |= {"resolutionunit": "CENTIMETER", "software": "eosin"}
    with atomic.replacing(path) as temporary, tifffile.TiffWriter(temporary) as tiff:
        for level in range(max(1, max(slide.rgb.shape).bit_length() - 8)):
            size = [edge >> level for edge in slide.rgb.shape[1::-1]]
            rgb = cv2.resize(slide.rgb, size, interpolation=cv2.INTER_AREA)
            dots = 10_000 / slide.mpp / 2**level
            tiff.write(rgb, resolution=(dots, dots), subfiletype=int(level > 0), **tags)


def write_slides(folder: Path, count: int = 10, seed: int = 0, size_px: int = 2048) -> list[Path]:
    """Writes unlabelled slides at 0.5 mpp; a slide that is already there is kept."""
    numbers = [2 * _LABELLED_SEEDS * seed + i for i in range(count)]
    paths = [folder / f"synthetic_{number}_{size_px}px.tiff" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        if not path.is_file():
            spec = SlideSpec(seed=number, width_px=size_px, height_px=size_px)
            write_slide(path, render_slide(spec))
    return paths


def write_labelled(
    folder: Path, slides: int, tiles_per_class: int, tile_px: int = 128, seed: int = 0
) -> None:
    """Writes `CLASS/SLIDE_I.jpg` and `groups.csv` from slides that `write_slides` never draws.

    The tiles of a class, `tiles_per_class` in all, are spread evenly over the slides (0.5 mpp).
    Finished tiles are kept; those of other settings raise InputError.
    """
    size_px = max(768, round(tile_px * np.sqrt(10 * tiles_per_class / slides)))
    numbers = [(2 * seed + 1) * _LABELLED_SEEDS + i % slides for i in range(tiles_per_class)]
    lines, groups = ["file,slide"], folder / "groups.csv"
    for name, (j, number) in itertools.product(CLASSES, enumerate(numbers)):
        lines.append(f"{name}/synthetic_{number}_{tile_px}px_{j}.jpg,synthetic_{number}")
    if groups.is_file():
        if groups.read_text().split() == lines:
            return
        raise InputError(f"{groups} lists tiles of other settings; remove it or name another.")
    for number in sorted(set(numbers)):
        slide = render_slide(SlideSpec(seed=number, width_px=size_px, height_px=size_px))
        tiles = _cut(slide, number, numbers.count(number), tile_px)
        own = (folder / line.split(",")[0] for line in lines if line.endswith(f"_{number}"))
        for path, tile in zip(own, tiles, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            bgr = cv2.cvtColor(tile, cv2.COLOR_RGB2BGR)
            path.write_bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    atomic.write_text(groups, "\n".join(lines) + "\n")


def _cut(slide: SyntheticSlide, seed: int, wanted: int, tile_px: int) -> Iterator[Bytes]:
    """Tiles of each class from the places that it fills best, drawn from a grid of half tiles."""
    rng, step = np.random.default_rng(seed), tile_px // 2
    for number in range(1, len(CLASSES) + 1):
        mask = (slide.class_map == number).astype(np.float32)
        share = cv2.boxFilter(mask, -1, (tile_px, tile_px), anchor=(0, 0))
        share = np.minimum(share[:-tile_px:step, :-tile_px:step], 0.85)
        order = np.lexsort((rng.random(share.size), -share.ravel()))[:wanted]
        for y, x in step * np.transpose(np.unravel_index(order, share.shape)):
            yield slide.rgb[y : y + tile_px, x : x + tile_px]


def _axes(angle: Any) -> Floats:
    """Unit vectors along and across `angle`, one a row."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s], [-s, c]])


def _ovals(rng: np.random.Generator, count: int, corners: int, waves: Any) -> Floats:
    """Closed outlines `[count, corners, 2]`: circles with waves of the given sizes, 2 round up."""
    t = np.linspace(0, _TURN, corners, endpoint=False)
    radius = np.ones((count, corners))
    for k, size in enumerate(waves, 2):
        swell = rng.normal(0, size, (count, 1))
        radius += swell * np.cos(k * t + rng.uniform(0, _TURN, (count, 1)))
    return radius[..., None] * np.stack([np.cos(t), np.sin(t)], -1)


def _fill(canvas: NDArray[Any], outline: Floats, value: int = 255) -> None:
    cv2.fillPoly(canvas, [np.round(outline * 16).astype(np.int32)], value, shift=4)


def _sample(values: NDArray[Any], points: Floats) -> NDArray[Any]:
    """The values at points x, y, ...; a point outside takes the nearest border."""
    y, x = np.clip(points[:, 1::-1].T, 0, np.array(values.shape)[:, None] - 1).astype(int)
    return values[y, x]


def _noise(rng: np.random.Generator, shape: Any, length_px: float) -> Floats:
    """Smooth noise of about unit variance: a random grid of that spacing, interpolated."""
    rows, columns = (int(size / length_px) + 4 for size in shape)
    grid = rng.standard_normal((rows, columns), np.float32) * np.float32(1.35)
    size = (int(columns * length_px), int(rows * length_px))
    fine = cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    y, x = rng.integers(0, int(length_px) + 1, 2)
    return fine[y : y + shape[0], x : x + shape[1]]
