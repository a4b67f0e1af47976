"""Thumbnails of what goes wrong in tissue detection, made from real tissue, with known masks.

Fields of real H&E are laid into shapes that are known, on real glass, by the law of Lambert and
Beer: optical densities add up, so pale tissue, ink over tissue and tinted glass look as they do on
a slide. The two halves share no tissue, no fat and no seed, but one slide's glass: methods are
tuned on `TUNING` and judged on `HELD_OUT`. The pictures stay in the data folder; none is kept here.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import openslide

MPP = 8.0
SIZE_PX = 768
_FIELD_PX = 31  # 250 µm, the width of a CoNSeP field; LC25000 names no width, and gets the same

Plane = npt.NDArray[np.float32]
RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_CONSEP = "consep/{}/Images/{}.png"
# Fields that are fat, mostly glass, or inked already.
_NOT_SOLID = {f"train_{number}" for number in (2, 4, 5, 12, 15, 16, 25, 26, 27)}
_INKS = {
    "blue": ((30, 60, 190), (25, 30, 110), (60, 110, 215)),
    "green": ((20, 140, 70), (0, 110, 90), (70, 160, 60)),
    "black": ((25, 25, 28), (45, 40, 42), (30, 32, 45)),
    "red": ((210, 30, 40), (190, 20, 70), (225, 50, 35)),
}


@dataclass(frozen=True)
class Thumbnail:
    """A picture at `mpp` µm per pixel, and where its tissue is."""

    name: str
    rgb: RGB
    mask: Mask
    mpp: float = MPP


@dataclass(frozen=True)
class Case:
    """Whose tissue is laid, whose fat, and by which seed."""

    solid: str
    fat: str
    seed: int


TUNING = (
    Case("consep/Train", "consep/Train/Images/train_25.png", 0),
    Case("consep/Train", "consep/Train/Images/train_16.png", 1),
    Case("consep/Train", "consep/Train/Images/train_25.png", 2),
    Case("lc25000/lung_image_sets/lung_scc", "consep/Train/Images/train_16.png", 3),
)
HELD_OUT = (
    Case("consep/Test", "consep/Train/Images/train_5.png", 100),
    Case("consep/Test", "nct_crc_he/NCT-CRC-HE-100K/ADI", 101),
    Case("lc25000/colon_image_sets/colon_n", "consep/Train/Images/train_5.png", 102),
    Case("lc25000/colon_image_sets/colon_aca", "consep/Train/Images/train_5.png", 103),
    Case("lc25000/lung_image_sets/lung_aca", "nct_crc_he/NCT-CRC-HE-100K/ADI", 104),
    Case("slides/CMU-1-Small-Region.svs", "consep/Train/Images/train_5.png", 105),
)


def build(data: Path, condition: str, case: Case) -> Thumbnail:
    """Makes one thumbnail; the same arguments give the same pixels.

    Args:
        data: the folder of real samples (see the fixture `shared_data`).
        condition: one of `CONDITIONS`.
        case: one of `TUNING` or `HELD_OUT`.
    """
    rng = np.random.default_rng([case.seed, zlib.crc32(condition.encode())])
    scene = _Scene(data, case, rng)
    _CONDITIONS[condition](scene)
    name = f"{condition}, {case.solid}, seed {case.seed}"
    return Thumbnail(name, scene.scan(), scene.mask)


class _Scene:
    """A slide under construction: optical densities on glass, and what of them is tissue."""

    def __init__(self, data: Path, case: Case, rng: np.random.Generator) -> None:
        self.data, self.case, self.rng = data, case, rng
        self.tissue = _mosaic(_solid_fields(data, case.solid), rng)
        self.coverage = _blobs(rng, share=rng.uniform(0.2, 0.4), scale_px=rng.uniform(45, 80))
        self.extra = np.zeros((SIZE_PX, SIZE_PX, 3), np.float32)
        self.light = np.ones((SIZE_PX, SIZE_PX, 3), np.float32)
        self.hidden = np.zeros((SIZE_PX, SIZE_PX), bool)
        self.strength = 1.0

    @property
    def mask(self) -> Mask:
        return (self.coverage > 0.5) & ~self.hidden

    def scan(self) -> RGB:
        density = self.coverage[..., None] * self.tissue * self.strength + self.extra
        glass = _mosaic(_glass_fields(self.data), self.rng)
        light = glass * self.light * np.exp(-density)
        # The glass of a slide is not everywhere of one colour, nor is a camera without noise.
        for channel in range(3):
            light[..., channel] *= 1 + 0.003 * _waves(self.rng, 300)
        light += self.rng.normal(0, self.rng.uniform(0.3, 1.2), light.shape)
        picture = np.clip(np.rint(light), 0, 255).astype(np.uint8)
        # The levels that thumbnails are read from are JPEG with halved chroma.
        quality = int(self.rng.integers(70, 91))
        _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.ascontiguousarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1])


@lru_cache(maxsize=16)
def _solid_fields(data: Path, source: str) -> list[Plane]:
    """Optical densities of up to 30 fields of a source, each a square of `_FIELD_PX`."""
    if source.endswith(".svs"):
        picture = read_slide(data / source)
        places = ((62, 30), (52, 75), (66, 122), (44, 150), (62, 150))
        pictures = [picture[y : y + _FIELD_PX, x : x + _FIELD_PX] for x, y in places]
        return [_density(field, 243) for field in pictures]
    paths = [path for path in sorted((data / source).rglob("*.*g")) if path.stem not in _NOT_SOLID]
    fields = [_read_field(path) for path in paths[:: max(1, len(paths) // 20)]]
    white = max(float(np.percentile(np.stack(fields), 99.5)), 225)
    densities = [_density(field, white) for field in fields]
    # A field that is a sixth glass would make the truth of its neighbourhood a matter of taste.
    return [field for field in densities if (field.mean(axis=2) < 0.06).mean() < 0.15]


@lru_cache(maxsize=8)
def _fat_fields(data: Path, source: str) -> list[Plane]:
    path = data / source
    is_half_mpp = path.is_dir()  # NCT-CRC-HE: 224 px at 0.5 mpp
    field = _read_field(next(path.iterdir()), 14) if is_half_mpp else _read_field(path)
    if path.stem == "train_16":  # the rest of this field is a vessel's wall
        field = field[:20, :20]
    return [_density(field, np.percentile(field, 97, axis=(0, 1)))]


@lru_cache(maxsize=1)
def _glass_fields(data: Path) -> list[Plane]:
    """Real glass: the margin of a slide, left of its tissue and free of dirt."""
    picture = read_slide(data / "slides/CMU-1-Small-Region.svs")
    return [picture[y : y + 16, :16].astype(np.float32) for y in (80, 100, 120, 140, 160)]


def read_slide(path: Path) -> RGB:
    """Reads a slide of 0.499 mpp as a thumbnail of 8 mpp."""
    slide = openslide.OpenSlide(path)
    try:
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    finally:
        slide.close()
    factor = 0.499 / MPP
    return np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))


def _read_field(path: Path, size_px: int = _FIELD_PX) -> RGB:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    return np.asarray(cv2.resize(pixels, (size_px, size_px), interpolation=cv2.INTER_AREA))


def _density(rgb: npt.NDArray[np.generic], white: npt.ArrayLike) -> Plane:
    return np.maximum(-np.log(np.maximum(rgb, 1) / np.asarray(white)), 0).astype(np.float32)


def _mosaic(fields: list[Plane], rng: np.random.Generator) -> Plane:
    """Covers the thumbnail with up to six of the fields, turned and mirrored at random."""
    chosen = [fields[i] for i in rng.permutation(len(fields))[:6]]
    size_px = chosen[0].shape[0]
    count = -(-SIZE_PX // size_px)
    rows = []
    for _ in range(count):
        turned = [
            np.rot90(chosen[rng.integers(len(chosen))], rng.integers(4)) for _ in range(count)
        ]
        rows.append(np.hstack([field[:, :: rng.choice((1, -1))] for field in turned]))
    return np.vstack(rows)[:SIZE_PX, :SIZE_PX].astype(np.float32)


def _waves(rng: np.random.Generator, scale_px: float) -> Plane:
    """Smooth noise with mean 0 and deviation 1, whose hills are about `scale_px` wide."""
    coarse = max(4, round(SIZE_PX / scale_px) + 3)
    noise = rng.normal(0, 1, (coarse, coarse)).astype(np.float32)
    smooth = cv2.resize(noise, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC)
    return (smooth - smooth.mean()) / smooth.std()


def _blobs(rng: np.random.Generator, share: float, scale_px: float) -> Plane:
    """Coverage, 0 to 1, of ragged pieces that cover that share of the thumbnail."""
    height = _waves(rng, scale_px * 2) + 0.12 * _waves(rng, 9) + 0.08 * _waves(rng, 5)
    pieces = (height > np.quantile(height, 1 - share)).astype(np.uint8)
    return _soften(_drop_specks(pieces))


def _drop_specks(pieces: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pieces below 0.02 mm², and gaps below it, are nobody's tissue and nobody's glass."""
    for value in (1, 0):
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(
            (pieces == value).astype(np.uint8)
        )
        small = statistics[:, cv2.CC_STAT_AREA] < 0.02e6 / MPP**2
        small[0] = False
        pieces = np.where(small[labels], 1 - value, pieces).astype(np.uint8)
    return pieces


def _soften(pieces: npt.NDArray[np.uint8]) -> Plane:
    """Half a pixel of blur, as the reduction to 8 mpp leaves at an edge."""
    return cv2.GaussianBlur(pieces.astype(np.float32), (0, 0), 0.6)


def _worm(rng: np.random.Generator, width_px: float, length_px: float) -> npt.NDArray[np.int32]:
    """A path that wanders from somewhere in the middle, as points [n, 2]."""
    angle = rng.uniform(0, 2 * np.pi)
    points = [rng.uniform(0.15 * SIZE_PX, 0.85 * SIZE_PX, 2)]
    for _ in range(int(length_px / width_px) + 1):
        angle += rng.normal(0, 0.25)
        points.append(points[-1] + width_px * np.array([np.cos(angle), np.sin(angle)]))
    return np.round(points).astype(np.int32)


def _pale(strength: float) -> Callable[[_Scene], None]:
    def apply(scene: _Scene) -> None:
        scene.strength = strength

    return apply


def _pen(colour: str) -> Callable[[_Scene], None]:
    def apply(scene: _Scene) -> None:
        rng = scene.rng
        drawn = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
        for _ in range(4):
            width_px = int(rng.integers(20, 60))
            line = _worm(rng, width_px, rng.uniform(250, 600))
            cv2.polylines(drawn, [line], False, 1, width_px, cv2.LINE_8)
        # Ink lies in streaks, and thicker where the pen stopped.
        thickness = np.clip(1 + 0.2 * _waves(rng, 12) + 0.15 * _waves(rng, 60), 0.45, 1.6)
        inks = _INKS[colour]
        shade = np.array(inks[rng.integers(len(inks))], np.float32)
        cover = cv2.GaussianBlur(drawn.astype(np.float32), (0, 0), 1.0)
        scene.extra += (cover * thickness)[..., None] * _density(shade, 245)
        scene.hidden |= cover > 0.5

    return apply


def _shade(scene: _Scene) -> None:
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX] / SIZE_PX
    corner = scene.rng.integers(0, 2, 2)
    distance = np.hypot(x - corner[0], y - corner[1]) / np.sqrt(2)
    scene.light *= (1 - 0.35 * distance**2)[..., None].astype(np.float32)


def _tint(scene: _Scene) -> None:
    yellow = (1, scene.rng.uniform(0.95, 0.98), scene.rng.uniform(0.78, 0.86))
    scene.light *= np.array(yellow, np.float32)


def _dust(scene: _Scene) -> None:
    """Specks of up to 50 µm and fibres one or two pixels thick, grey, brown and bluish."""
    colours = ((90, 90, 95), (130, 110, 90), (100, 110, 140), (60, 60, 60))
    for number in range(90):
        drawn = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
        place = scene.rng.integers(0, SIZE_PX, 2).tolist()
        if number < 84:
            axes = scene.rng.integers(1, 4, 2).tolist()
            cv2.ellipse(drawn, place, axes, float(scene.rng.uniform(0, 180)), 0, 360, 1, -1)
        else:
            line = _worm(scene.rng, 4, scene.rng.uniform(15, 50))
            cv2.polylines(drawn, [line], False, 1, int(scene.rng.integers(1, 3)))
        colour = np.array(colours[scene.rng.integers(len(colours))], np.float32)
        scene.extra += _soften(drawn)[..., None] * _density(colour, 245)


def _border(scene: _Scene) -> None:
    """Black where the scanner saw no slide, at two edges, and a grey seam along it."""
    top, left = scene.rng.integers(20, 70, 2).tolist()
    dark = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    dark[:top], dark[:, :left] = 1, 1
    scene.extra += cv2.GaussianBlur(dark.astype(np.float32), (0, 0), 1.0)[..., None] * 3.5
    scene.hidden |= dark.astype(bool)


def _fatten(scene: _Scene) -> None:
    """Half of the tissue is fat: thin walls around white cells, all of which is tissue."""
    fat = _mosaic(_fat_fields(scene.data, scene.case.fat), scene.rng)
    where = _soften((_waves(scene.rng, 250) > 0).astype(np.uint8))[..., None]
    scene.tissue = scene.tissue * (1 - where) + fat * where


def _thin(scene: _Scene) -> None:
    """Needle biopsies, 60 to 130 µm wide, with a ragged outline."""
    drawn = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    for _ in range(7):
        width_px = int(scene.rng.integers(60, 131) / MPP)
        line = _worm(scene.rng, width_px, scene.rng.uniform(200, 500))
        cv2.polylines(drawn, [line], False, 1, width_px, cv2.LINE_8)
    ragged = cv2.GaussianBlur(drawn.astype(np.float32), (0, 0), 2) + 0.06 * _waves(scene.rng, 5)
    scene.coverage = _soften(_drop_specks((ragged > 0.5).astype(np.uint8)))


_CONDITIONS: dict[str, Callable[[_Scene], None]] = {
    "clean": _pale(1.0),
    "pale .25": _pale(0.25),
    "pale .12": _pale(0.12),
    "blue pen": _pen("blue"),
    "green pen": _pen("green"),
    "black pen": _pen("black"),
    "red pen": _pen("red"),
    "shading": _shade,
    "tint": _tint,
    "dust": _dust,
    "black border": _border,
    "adipose": _fatten,
    "thin biopsy": _thin,
}
CONDITIONS = tuple(_CONDITIONS)
