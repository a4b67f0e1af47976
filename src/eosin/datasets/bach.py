"""BACH: photographs of breast tissue, normal, benign, in situ and invasive carcinoma."""

import re
from pathlib import Path

from eosin.datasets._base import Archive, Info, LabelledImages, Options, wrong_tree
from eosin.datasets._files import Entry, FileSet, absent, make_file_set, strays, walk_files
from eosin.datasets._findings import Finding
from eosin.datasets._verify import verify_files

INFO = Info(
    title="BACH, Grand Challenge on Breast Cancer Histology images (ICIAR 2018), photographs",
    licence="CC BY-NC-ND 4.0",
    licence_url="https://creativecommons.org/licenses/by-nc-nd/4.0/legalcode",
    citation="Aresta et al. 2019, BACH: Grand challenge on breast cancer histology images, Medical "
    "Image Analysis 56",
    source="https://zenodo.org/records/3632035",
    expected_tree="""
[ICIAR2018_BACH_Challenge/]
  [Photos/]
    Benign/    b001.tif … b100.tif     (2048 x 1536 pixels)
    InSitu/    is001.tif … is100.tif
    Invasive/  iv001.tif … iv100.tif
    Normal/    n001.tif … n100.tif
""",
    classes=("Benign", "InSitu", "Invasive", "Normal"),
    counts={"train": 268, "test": 132},
    class_counts={
        "train": {"Benign": 52, "InSitu": 70, "Invasive": 69, "Normal": 77},
        "test": {"Benign": 48, "InSitu": 30, "Invasive": 31, "Normal": 23},
    },
    groups="patient, as the organisers published them for 145 of the 400 images, among them all of "
    "the test split; every other image is its own group",
    division="of the 400 labelled images into 268 and 132, as eva and THUNDER do; the labels of "
    "the challenge's own test images are not public",
    image_px=(2048, 1536),
    mpp=0.42,
    download_bytes=10_400_000_000,
    installed_bytes=7_600_000_000,
    archives=(
        Archive(
            url="https://zenodo.org/records/3632035/files/ICIAR2018_BACH_Challenge.zip?download=1",
            hosts=("zenodo.org",),
            checksum="md5:8ae1801334aa943c44627c1eef3631b2",
            gives="ICIAR2018_BACH_Challenge/Photos",
            most_bytes=40_000_000_000,
            leaves_out=("ICIAR2018_BACH_Challenge/WSI/",),
        ),
    ),
    remarks=(
        "eva's page speaks of 408 images, 102 a class, and of a licence with the name of BY-NC-SA "
        "and the address of BY-NC-ND; the README of the organisers says BY-NC-ND, and there are "
        "400.",
        "Whether the 255 images of unknown patients share patients with the test split is not "
        "known; the organisers' table of patients has none of them.",
        "The archive's whole-slide images are not unpacked; Eosin has no use for them here.",
    ),
)

_PREFIX = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}
_OF_A_CLASS = 100
# The numbers of the test images, both ends included; all others are for training.
_TEST = {
    "Benign": ((42, 59), (61, 90)),
    "InSitu": ((40, 69),),
    "Invasive": ((41, 58), (61, 73)),
    "Normal": ((46, 68),),
}
# Patients by runs of images (organisers' ICIAR2018_BACH_dataset_micro_patient.xlsx).
_PATIENTS = {
    "b": "32-35:11 36-38:12 39-40:13 41:15 42-44:16 45-58:17 59:18 60:19 61-63:20 64-69:21 "
    "70-90:14",
    "is": "40-53:23 54:25 55:26 56:22 57:24 58-69:14",
    "iv": "41-42:27 43-44:28 45:29 46:25 47:26 48-49:30 50-53:31 54-55:32 56-57:33 58:22 59-60:19 "
    "61-62:34 63:35 64:36 65-66:37 67-68:38 69-70:39 71-73:14",
    "n": "46-51:16 52-55:17 56-60:18 61-62:22 63:20 64-68:21",
}


def recognises(root: Path) -> bool:
    """Whether the four class folders lie in `root`, or where the archive has them."""
    return _photos(root) is not None


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits that `load` takes here."""
    return _scan(root, options).splits


def load(root: Path, split: str, options: Options) -> LabelledImages:
    """Loads the training or the test split of the division into 268 and 132 images.

    Raises:
        InputError: the tree is another one, or an image cannot be read.
    """
    return _scan(root, options).load(split)


def verify(root: Path, options: Options) -> list[Finding]:
    """Checks the tree against what is published, and decodes every image."""
    return verify_files(_scan(root, options), INFO)


def _photos(root: Path) -> Path | None:
    for inner in (".", "Photos", "ICIAR2018_BACH_Challenge/Photos"):
        if sum((root / inner / name).is_dir() for name in INFO.classes) > 1:
            return root / inner
    return None


def _scan(root: Path, options: Options) -> FileSet:
    photos = _photos(root)
    if photos is None:
        raise wrong_tree(root, "no folders of BACH's classes.", INFO.expected_tree)
    expected = {
        f"{name}/{_PREFIX[name]}{number:03}.tif": (name, number)
        for name in INFO.classes
        for number in range(1, _OF_A_CLASS + 1)
    }
    patients = _patients()
    files = [name for name in walk_files(photos) if "/" in name]
    entries = [
        Entry(
            id=name,
            of_class=expected[name][0],
            split="test" if _is_for_testing(*expected[name]) else "train",
            group=patients.get(Path(name).stem, ""),
        )
        for name in files
        if name in expected
    ]
    missing = {name: f"image {at[1]} of {at[0]}" for name, at in expected.items()}
    for entry in entries:
        del missing[entry.id]
    others = [name for name in files if name not in expected]
    return make_file_set(
        "bach",
        photos,
        INFO.classes,
        entries,
        options,
        grouped_by="patient where published, else image",
        rule=("BACH 268/132, 1",),
        findings=[
            *absent(photos, missing),
            *strays(photos, others, "has the name of no image of its class"),
        ],
    )


def _is_for_testing(of_class: str, number: int) -> bool:
    return any(first <= number <= last for first, last in _TEST[of_class])


def _patients() -> dict[str, str]:
    """Gives the patient of each image of which it is published, by the file's stem."""
    found: dict[str, str] = {}
    for prefix, runs in _PATIENTS.items():
        for first, last, patient in re.findall(r"(\d+)(?:-(\d+))?:(\d+)", runs):
            for number in range(int(first), int(last or first) + 1):
                found[f"{prefix}{number:03}"] = f"patient {patient}"
    return found
