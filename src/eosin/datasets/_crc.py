"""NCT-CRC-HE-100K and its variant that is not normalised: the same tiles, tree and test split."""

from pathlib import Path

from eosin.datasets._base import Archive, Info, Options, wrong_tree
from eosin.datasets._files import Entry, FileSet, make_file_set, strays, walk_files
from eosin.datasets._findings import Finding
from eosin.images.files import SUFFIXES

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
TEST_FOLDER = "CRC-VAL-HE-7K"

_RECORD = "https://zenodo.org/records/1214456"
_TRAIN = (10_407, 10_566, 11_512, 11_557, 8_896, 13_536, 8_763, 10_446, 14_317)
_TEST = (1_338, 847, 339, 634, 1_035, 592, 741, 421, 1_233)


def make_info(title: str, folder: str, archive: Archive, remarks: tuple[str, ...]) -> Info:
    """Describes the dataset whose training tiles lie in `folder`."""
    return Info(
        title=title,
        licence="CC BY 4.0",
        licence_url="https://creativecommons.org/licenses/by/4.0/legalcode",
        citation="Kather et al. 2019, Predicting survival from colorectal cancer histology slides "
        "using deep learning, PLOS Medicine 16(1), and doi.org/10.5281/zenodo.1214456",
        source=_RECORD,
        expected_tree=f"""
{folder}/   ADI/ADI-*.tif BACK/ DEB/ LYM/ MUC/ MUS/ NORM/ STR/ TUM/   (224 x 224 pixels)
{TEST_FOLDER}/   the same folders
""",
        classes=CLASSES,
        counts={"train": sum(_TRAIN), "test": sum(_TEST)},
        class_counts={
            "train": dict(zip(CLASSES, _TRAIN, strict=True)),
            "test": dict(zip(CLASSES, _TEST, strict=True)),
        },
        groups="not published: the training tiles are of 86 slides and the test tiles of 50 "
        "patients, but no file name says which, so intervals are too narrow",
        division=f"official: {folder} to train, {TEST_FOLDER}, of other patients, to test",
        image_px=(224, 224),
        mpp=0.5,
        download_bytes=12_500_000_000,
        installed_bytes=16_000_000_000,
        archives=(
            archive,
            Archive(
                url=f"{_RECORD}/files/CRC-VAL-HE-7K.zip?download=1",
                hosts=("zenodo.org",),
                checksum="md5:2fd1651b4f94ebd818ebf90ad2b6ce06",
                gives=TEST_FOLDER,
                most_bytes=4_000_000_000,
                size_bytes=800_276_929,
            ),
        ),
        remarks=(
            *remarks,
            "An analysis of others found JPEG artefacts that differ between the classes and tiles "
            "of wrong dynamic range in the 100,000; a colour histogram alone reaches 82 %. Read "
            "the rows of the baselines (Ignatov and Malivenko 2024, NCT-CRC-HE: Not All "
            "Histopathological Datasets Are Equally Useful).",
        ),
    )


def scan(dataset: str, folder: str, root: Path, info: Info, options: Options) -> FileSet:
    """Finds the tiles of both folders.

    Raises:
        InputError: one of them is not there.
    """
    entries: list[Entry] = []
    findings: list[Finding] = []
    for name, split in ((folder, "train"), (TEST_FOLDER, "test")):
        if not (root / name).is_dir():
            raise wrong_tree(root, f"{name}/ is missing.", info.expected_tree)
        others: list[str] = []
        for file in walk_files(root / name):
            of_class, _, rest = file.partition("/")
            is_tile = "/" not in rest and Path(rest).suffix.lower() in SUFFIXES
            if of_class not in CLASSES or not is_tile:
                others.append(f"{name}/{file}")
                continue
            entries.append(Entry(id=f"{name}/{file}", of_class=of_class, split=split))
            if (said := rest.partition("-")[0]) != of_class:
                findings.append(_other_class(root / name / file, said, of_class))
        findings += strays(root, others, "is no tile in the folder of a class")
    return make_file_set(
        dataset, root, CLASSES, entries, options, rule=("official folders",), findings=findings
    )


def _other_class(path: Path, said: str, of_class: str) -> Finding:
    what = f"says {said}" if said in CLASSES else "does not begin with a class"
    return Finding(
        kind="label",
        where=str(path),
        sentence=f"{path}: its name {what}, its folder {of_class}; the folder counts.",
    )
