"""PatchCamelyon's public files, as its Zenodo record 2546921 has them."""

from eosin.datasets._base import Archive

STEM = "camelyonpatch_level_2_split_"

_RECORD = "https://zenodo.org/records/2546921/files"
# Small files first, so that a wrong set-up shows at once. torchvision's loader has the same pairs.
_MD5 = {
    "train_y.h5.gz": "35c2d7259d906cfc8143347bb8e05be7",
    "valid_y.h5.gz": "2b85f58b927af9964a4c15b8f7e8f179",
    "test_y.h5.gz": "60a7035772fbdb7f34eb86d4420cf66a",
    "train_meta.csv": "5a3dd671e465cfd74b5b822125e65b0a",
    "valid_meta.csv": "67589e00a4a37ec317f2d1932c7502ca",
    "test_meta.csv": "3455fd69135b66734e1008f3af684566",
    "valid_x.h5.gz": "d5b63470df7cfa627aeec8b9dc0c066e",
    "test_x.h5.gz": "d8c2d60d490dbd479f8199bdfa0cf6ec",
    "train_x.h5.gz": "1571f514728f59376b705fc836ff4b63",
}

ARCHIVES = tuple(
    Archive(
        url=f"{_RECORD}/{STEM}{file}?download=1",
        hosts=("zenodo.org",),
        checksum=f"md5:{md5}",
        gives=f"{STEM}{file.removesuffix('.gz')}",
        most_bytes=8_000_000_000,
    )
    for file, md5 in _MD5.items()
)

REMARKS = (
    "The table in the project's README has the hashes of the validation and the test files the "
    "other way round; those here are the record's, and torchvision's loader takes the same. "
    "Whoever has files by that table has the two splits swapped.",
    "Patches were sampled at random, and by the page of Kaggle's copy some are there twice; verify "
    "names them.",
)
