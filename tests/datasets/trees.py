"""Canonical trees of the data sets: true names, shapes and label files, as many as asked for.

`scale` is the share of the true counts, 1.0 all of them; every class keeps at least one image a
split. Images are of one colour, no two alike, and as large as asked for.
"""

import csv
import functools
import io
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from eosin.datasets import bach as bach_module
from eosin.datasets import crc as crc_module
from eosin.datasets import mhist as mhist_module
from eosin.datasets._base import Options

Size = tuple[int, int]
Counts = Mapping[str, Mapping[str, int]]

BACH_PHOTOS = "ICIAR2018_BACH_Challenge/Photos"
PCAM_STEM = "camelyonpatch_level_2_split_"
MHIST_COLUMNS = (
    "Image Name",
    "Majority Vote Label",
    "Number of Annotators who Selected SSA (Out of 7)",
    "Partition",
)
_MOST_PX_RAW = 60_000
_BACH_PREFIX = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}
# Of the list that eva publishes: places in the sorted list of all 400 files, ends left out.
BACH_TEST = ((41, 59), (60, 90), (139, 169), (240, 258), (260, 273), (345, 368))


def write_image(path: Path, number: int, size_px: Size) -> None:
    """Writes an image whose colour tells its number, up to 2 ** 24."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (number % 256, number // 256 % 256, number // 65_536)
    pixels = size_px[0] * size_px[1]
    if path.suffix == ".tif" and pixels <= _MOST_PX_RAW:
        before, after = _raw_tif(size_px)
        path.write_bytes(before + bytes(colour) * pixels + after)
        return
    options = {"compression": "tiff_adobe_deflate"} if path.suffix == ".tif" else {}
    Image.new("RGB", size_px, colour).save(path, **options)


@functools.cache
def _raw_tif(size_px: Size) -> tuple[bytes, bytes]:
    """What is before and behind the pixels; encoding a hundred thousand would take minutes."""
    made = io.BytesIO()
    Image.new("RGB", size_px, (1, 2, 3)).save(made, "tiff", compression="raw")
    before, _, after = made.getvalue().partition(bytes((1, 2, 3)) * (size_px[0] * size_px[1]))
    return before, after


def scaled(counts: Counts, scale: float) -> dict[str, dict[str, int]]:
    """Scales counts of each split and class."""
    return {
        split: {name: max(round(count * scale), 1) for name, count in classes.items()}
        for split, classes in counts.items()
    }


def load_all(module: ModuleType, root: Path, **options: Any) -> dict[str, Any]:
    """Loads every split of a tree."""
    given = Options(**options)
    return {split: module.load(root, split, given) for split in module.splits(root, given)}


def bach(root: Path, scale: float = 1.0, size_px: Size = (2048, 1536)) -> Path:
    """BACH's photographs; the first of each class and split."""
    wanted = scaled(bach_module.INFO.class_counts, scale)
    for place in range(400):
        of_class = list(_BACH_PREFIX)[place // 100]
        split = "test" if any(start <= place < end for start, end in BACH_TEST) else "train"
        if wanted[split][of_class]:
            wanted[split][of_class] -= 1
            name = f"{_BACH_PREFIX[of_class]}{place % 100 + 1:03}.tif"
            write_image(root / BACH_PHOTOS / of_class / name, place, size_px)
    (root / BACH_PHOTOS / "microscopy_ground_truth.csv").write_text("")
    return root


def crc(
    root: Path,
    scale: float = 1.0,
    size_px: Size = (224, 224),
    folder: str = "NCT-CRC-HE-100K",
) -> Path:
    """The training and the test tiles of NCT-CRC-HE-100K or its variant."""
    counts = scaled(crc_module.INFO.class_counts, scale)
    number = 0
    for split, top, infix in (("train", folder, ""), ("test", "CRC-VAL-HE-7K", "TCGA-")):
        for name, count in counts[split].items():
            for code in _codes(8, count):
                path = root / top / name / f"{name}-{infix}{code.upper()}.tif"
                write_image(path, number, size_px)
                number += 1
    return root


def mhist(root: Path, scale: float = 1.0, size_px: Size = (224, 224)) -> Path:
    """MHIST's images and annotations, in a mixed order."""
    counts = scaled(mhist_module.INFO.class_counts, scale)
    kinds = [
        (label, split)
        for split, classes in counts.items()
        for label, count in classes.items()
        for _ in range(count)
    ]
    order = np.random.default_rng(0).permutation(len(kinds))
    rows: list[tuple[str, ...]] = [MHIST_COLUMNS]
    for number, (code, kind) in enumerate(zip(_codes(3, len(kinds)), order, strict=True)):
        label, split = kinds[kind]
        name = f"MHIST_{code}.png"
        write_image(root / "images" / name, number, size_px)
        rows.append((name, label, str(number % 4 + (4 if label == "SSA" else 0)), split))
    with open(root / "annotations.csv", "w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return root


def patch_camelyon(root: Path, scale: float = 1.0, side_px: int = 96) -> Path:
    """PatchCamelyon's files with ten slides a split; half of the patches are tumour."""
    root.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate(pcam_counts(scale).items()):
        pixels = np.random.default_rng(seed).integers(
            0, 256, (count, side_px, side_px, 3), dtype=np.uint8
        )
        labels = (np.arange(count, dtype=np.uint8) % 2).reshape(-1, 1, 1, 1)
        with h5py.File(root / f"{PCAM_STEM}{split}_x.h5", "w") as file:
            file.create_dataset("x", data=pixels, chunks=(min(count, 32), side_px, side_px, 3))
        with h5py.File(root / f"{PCAM_STEM}{split}_y.h5", "w") as file:
            file.create_dataset("y", data=labels)
        rows = [f"{row},0,0,True,True,{split}_slide_{row % 10}" for row in range(count)]
        header = ",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"
        (root / f"{PCAM_STEM}{split}_meta.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def pcam_counts(scale: float) -> dict[str, int]:
    """Patches of each split at a scale; even, so that half can be tumour."""
    true = {"train": 262_144, "valid": 32_768, "test": 32_768}
    return {split: max(2 * round(count * scale / 2), 2) for split, count in true.items()}


def break_his(root: Path, a_patient: int = 2, size_px: Size = (70, 46)) -> Path:
    """BreakHis with four patients a kind, each with images at two magnifications."""
    number = 0
    kinds = {
        "benign": {
            "adenosis": "B_A",
            "fibroadenoma": "B_F",
            "phyllodes_tumor": "B_PT",
            "tubular_adenoma": "B_TA",
        },
        "malignant": {
            "ductal_carcinoma": "M_DC",
            "lobular_carcinoma": "M_LC",
            "mucinous_carcinoma": "M_MC",
            "papillary_carcinoma": "M_PC",
        },
    }
    breast = root / "BreaKHis_v1/histology_slides/breast"
    for nature, folders in kinds.items():
        for place, (folder, code) in enumerate(folders.items()):
            for patient in (f"1000{place}", f"2000{place}AB", f"2000{place}CD", f"3000{place}"):
                for magnification in (40, 100):
                    for image in range(1, a_patient + 1):
                        slide = f"SOB_{code}_14-{patient}/{magnification}X"
                        name = f"SOB_{code}-14-{patient}-{magnification}-{image:03}.png"
                        path = breast / nature / "SOB" / folder / slide / name
                        write_image(path, number, size_px)
                        number += 1
    return root


def lc25000(
    root: Path, a_class: int = 12, size_px: Size = (24, 24), *, sources: bool = True
) -> Path:
    """LC25000 with four images of each original."""
    rows = ["class,file,source_image"]
    stems = {
        "colon_aca": "colonca",
        "colon_n": "colonn",
        "lung_aca": "lungaca",
        "lung_n": "lungn",
        "lung_scc": "lungscc",
    }
    number = 0
    for of_class, stem in stems.items():
        organ = of_class.partition("_")[0]
        for image in range(1, a_class + 1):
            path = root / f"{organ}_image_sets" / of_class / f"{stem}{image}.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            colour = (8 * (number % 30), 8 * (number // 30), 128)
            Image.new("RGB", size_px, colour).save(path, quality=95)
            rows.append(f"{of_class},{path.name},{of_class}_{(image - 1) // 4}")
            number += 1
    if sources:
        (root / "source_images.csv").write_text("\n".join(rows) + "\n")
    return root


def consep(root: Path, scale: float = 1.0, size_px: Size = (1000, 1000), n_types: int = 7) -> Path:
    """CoNSeP with a nucleus of each type in every image, of 2 x 3 pixels, numbered 1, 3, 5, …"""
    number = 0
    for split, count in {"Train": 27, "Test": 14}.items():
        for image in range(1, max(round(count * scale), 1) + 1):
            name = f"{split.lower()}_{image}"
            write_image(root / split / "Images" / f"{name}.png", number, size_px)
            path = root / split / "Labels" / f"{name}.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(path, consep_labels(size_px, n_types), do_compression=True)
            number += 1
        (root / split / "Overlay").mkdir()
        (root / split / "Overlay" / "train_1.png").write_bytes(b"")
    (root / "README.txt").write_text("")
    return root


def consep_labels(size_px: Size, n_types: int) -> dict[str, NDArray[np.float64]]:
    """The matrices of one label file, all of float64 as MATLAB has them."""
    width, height = size_px
    instances, types = np.zeros((height, width)), np.zeros((height, width))
    for of_type in range(1, n_types + 1):
        place = (slice(0, 3), slice(3 * of_type, 3 * of_type + 2))
        instances[place], types[place] = 2 * of_type - 1, of_type
    return {
        "inst_map": instances,
        "type_map": types,
        "inst_type": np.arange(1.0, n_types + 1)[:, None],
        "inst_centroid": np.ones((n_types, 2)),
    }


def monuseg(root: Path, scale: float = 1.0, size_px: Size = (1000, 1000)) -> Path:
    """MoNuSeg with two outlines in every image, each two images of one patient."""
    number = 0
    for images, outlines, count in (
        ("MoNuSeg 2018 Training Data/Tissue Images", "MoNuSeg 2018 Training Data/Annotations", 37),
        ("MoNuSegTestData", "MoNuSegTestData", 14),
    ):
        for image in range(max(round(count * scale), 2)):
            # No patient of the test data is one of the training data.
            name = (
                f"TCGA-{'T' if images == outlines else 'A'}{image % 10}-{image // 2:04}-01Z-00-DX1"
            )
            write_image(root / images / f"{name}.tif", number, size_px)
            (root / outlines).mkdir(parents=True, exist_ok=True)
            boxes = ((2, 1, 5, 4), (4, 2, 7, 5))
            (root / outlines / f"{name}.xml").write_text(imagescope(boxes))
            number += 1
    return root


def imagescope(boxes: Sequence[tuple[float, float, float, float]]) -> str:
    """ImageScope's XML of rectangles: left, top, right, bottom."""
    regions: list[str] = []
    for number, (left, top, right, bottom) in enumerate(boxes, start=1):
        corners = ((left, top), (right, top), (right, bottom), (left, bottom))
        vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0" />' for x, y in corners)
        regions.append(
            f'<Region Id="{number}" Type="0" Zoom="1" NegativeROA="0"><Attributes />'
            f"<Vertices>{vertices}</Vertices></Region>"
        )
    return (
        '<?xml version="1.0"?>\n<Annotations MicronsPerPixel="0.252000"><Annotation Id="1" '
        'Name="" LineColor="65535"><Attributes><Attribute Name="Description" Id="0" /></Attributes>'
        '<Regions><RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region" />'
        f"</RegionAttributeHeaders>{''.join(regions)}</Regions><Plots /></Annotation></Annotations>"
    )


def pannuke(root: Path, scale: float = 1.0, side_px: int = 256) -> Path:
    """PanNuke's folds, with a nucleus of each type in every patch, and the tissue of each."""
    number = 0
    for fold, count in {1: 2656, 2: 2523, 3: 2722}.items():
        count = max(round(count * scale), 1)
        images = np.zeros((count, side_px, side_px, 3))
        masks = np.zeros((count, side_px, side_px, 6))
        for row in range(count):
            images[row] = number % 256, number // 256, fold
            for of_type in range(5):
                masks[row, 2 * of_type : 2 * of_type + 2, :3, of_type] = of_type + 7
            number += 1
        masks[..., 5] = (masks[..., :5] == 0).all(-1)
        for name, array in (
            (f"images/fold{fold}/images.npy", images),
            (f"images/fold{fold}/types.npy", np.array(["Bile-duct"] * count)),
            (f"masks/fold{fold}/masks.npy", masks),
        ):
            path = root / f"Fold {fold}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
    return root


def _codes(length: int, count: int) -> Iterator[str]:
    letters = string.ascii_lowercase
    for number in range(count):
        digits = [number // 26**power % 26 for power in reversed(range(length))]
        yield "".join(letters[digit] for digit in digits)
