"""BreakHis: breast tumours of eight kinds, photographed at four magnifications."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from eosin.datasets._base import ALL, Info, LabelledImages, Options, wrong_tree
from eosin.datasets._files import Entry, FileSet, make_file_set, strays, walk_files
from eosin.datasets._findings import Finding
from eosin.datasets._verify import verify_files

CLASSES = ("A", "F", "PT", "TA", "DC", "LC", "MC", "PC")
_COUNTS: Mapping[str, tuple[int, ...]] = {
    "40X": (114, 253, 109, 149, 864, 156, 205, 145),
    "100X": (113, 260, 121, 150, 903, 170, 222, 142),
    "200X": (111, 264, 108, 140, 896, 163, 196, 135),
    "400X": (106, 237, 115, 130, 788, 137, 169, 138),
}

INFO = Info(
    title="BreakHis, Breast Cancer Histopathological Database",
    licence="CC BY 4.0",
    licence_url="https://creativecommons.org/licenses/by/4.0/",
    citation="Spanhol et al. 2016, A Dataset for Breast Cancer Histopathological Image "
    "Classification, IEEE Transactions on Biomedical Engineering 63(7)",
    source="https://web.inf.ufpr.br/vri/databases/"
    "breast-cancer-histopathological-database-breakhis/",
    expected_tree="""
[BreaKHis_v1/][histology_slides/][breast/]
  benign/SOB/     adenosis/ fibroadenoma/ phyllodes_tumor/ tubular_adenoma/
  malignant/SOB/  ductal_carcinoma/ lobular_carcinoma/ mucinous_carcinoma/ papillary_carcinoma/
    SOB_B_A_14-22549AB/40X/SOB_B_A-14-22549AB-40-001.png   (and 100X, 200X, 400X)
""",
    classes=CLASSES,
    class_counts={ALL: dict(zip(CLASSES, _COUNTS["40X"], strict=True))},
    groups="patient, by year and number in the file name, without the letters of the block: "
    "22549AB, 22549CD and 22549G are one",
    division="ours: --test-share of each kind, whole patients at a time, at --magnification 40X, "
    "100X, 200X or 400X",
    download_bytes=4_000_000_000,
    installed_bytes=4_000_000_000,
    how_to_get=(
        "Download BreaKHis_v1.tar.gz (4 GB) from the page that is its source, or from "
        "http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz. That address has no https and "
        "no checksum is published, so Eosin does not fetch it.",
        "Unpack it: tar -xzf BreaKHis_v1.tar.gz -C {root}",
    ),
    remarks=(
        "Pages speak of 9,109 images; 7,909 are in the archive, 1,995 of them at 40X.",
        "The publishers count 82 patients, letters included. Patient 14-13412 is there twice, as "
        "ductal (DC) and as lobular (LC) carcinoma, with equally many images; verify names those "
        "that are the same.",
        "eva and THUNDER take four kinds with at least seven patients (TA, MC, F, DC) at 40X and "
        "divide them by lists of patients of their own: their figures are of another task.",
    ),
)

_NAME = re.compile(r"SOB_([BM])_([A-Z]+)-(\d+)-(\d+)[A-Z]*-(40|100|200|400)-\d+\.png")
_KINDS = {
    "adenosis": "A",
    "fibroadenoma": "F",
    "phyllodes_tumor": "PT",
    "tubular_adenoma": "TA",
    "ductal_carcinoma": "DC",
    "lobular_carcinoma": "LC",
    "mucinous_carcinoma": "MC",
    "papillary_carcinoma": "PC",
}


def recognises(root: Path) -> bool:
    """Whether the folders of kinds lie in `root`, or where the archive has them."""
    return _base(root) is not None


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits that `load` takes here."""
    return _scan(root, options).splits


def load(root: Path, split: str, options: Options) -> LabelledImages:
    """Loads one split of our division of the images of `options.magnification`.

    Raises:
        InputError: the tree is another one, or an image cannot be read.
    """
    return _scan(root, options).load(split)


def verify(root: Path, options: Options) -> list[Finding]:
    """Checks the images of one magnification against what is published, and decodes them."""
    counts = dict(zip(CLASSES, _COUNTS[options.magnification], strict=True))
    return verify_files(_scan(root, options), replace(INFO, class_counts={ALL: counts}))


def _base(root: Path) -> Path | None:
    inner = Path("BreaKHis_v1/histology_slides/breast")
    for above in range(len(inner.parts) + 1):
        base = root.joinpath(*inner.parts[above:])
        if (base / "benign" / "SOB").is_dir() or (base / "malignant" / "SOB").is_dir():
            return base
    return None


def _scan(root: Path, options: Options) -> FileSet:
    base = _base(root)
    if base is None:
        raise wrong_tree(root, "no benign/SOB or malignant/SOB.", INFO.expected_tree)
    entries: list[Entry] = []
    findings: list[Finding] = []
    others: list[str] = []
    for file in walk_files(base):
        parts = file.split("/")
        named = _NAME.fullmatch(parts[-1])
        if named is None or named[2] not in CLASSES or len(parts) != 6 or parts[2] not in _KINDS:
            others.append(file)
        elif parts[4] == options.magnification:
            patient = f"patient {named[3]}-{named[4]}"
            entries.append(Entry(id=file, of_class=_KINDS[parts[2]], group=patient))
            findings += _contradictions(base / file, named[2], f"{named[5]}X")
    if not entries:
        problem = f"no images in folders named {options.magnification}."
        raise wrong_tree(root, problem, INFO.expected_tree)
    there = Counter(entry.of_class for entry in entries)
    return make_file_set(
        "break_his",
        base,
        [name for name in CLASSES if there[name]],
        entries,
        options,
        grouped_by="patient in the file name",
        findings=[*findings, *strays(base, others, "is no image of BreakHis by its place or name")],
    )


def _contradictions(path: Path, kind: str, magnification: str) -> list[Finding]:
    said: list[str] = []
    folder_kind = _KINDS[path.parts[-4]]
    if kind != folder_kind:
        said.append(f"{path}: its name says {kind}, its folder {folder_kind}; the folder counts.")
    if path.parts[-2] != magnification:
        said.append(f"{path}: its name says {magnification}, its folder {path.parts[-2]}.")
    return [Finding(kind="label", where=str(path), sentence=each) for each in said]
