"""NCT-CRC-HE-100K-NONORM and CRC-VAL-HE-7K: colorectal tissue as it was scanned."""

from pathlib import Path

from eosin.datasets import _crc
from eosin.datasets._base import Archive, LabelledImages, Options
from eosin.datasets._findings import Finding
from eosin.datasets._verify import verify_files

_FOLDER = "NCT-CRC-HE-100K-NONORM"

INFO = _crc.make_info(
    "NCT-CRC-HE-100K-NONORM with CRC-VAL-HE-7K, training tiles not stain-normalised",
    _FOLDER,
    Archive(
        url="https://zenodo.org/records/1214456/files/NCT-CRC-HE-100K-NONORM.zip?download=1",
        hosts=("zenodo.org",),
        checksum="md5:035777cf327776a71a05c95da6d6325f",
        gives=_FOLDER,
        most_bytes=40_000_000_000,
    ),
    remarks=(
        "The test tiles are those of crc; the training tiles are its tiles before normalisation.",
    ),
)


def recognises(root: Path) -> bool:
    """Whether the training tiles that are not normalised lie in `root`, and the others do not."""
    return (root / _FOLDER).is_dir() and not (root / "NCT-CRC-HE-100K").is_dir()


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits that `load` takes here.

    Raises:
        InputError: the training or the test tiles are missing.
    """
    return _crc.scan("crc_nonorm", _FOLDER, root, INFO, options).splits


def load(root: Path, split: str, options: Options) -> LabelledImages:
    """Loads the training or the test tiles.

    Raises:
        InputError: they are missing, or a tile cannot be read.
    """
    return _crc.scan("crc_nonorm", _FOLDER, root, INFO, options).load(split)


def verify(root: Path, options: Options) -> list[Finding]:
    """Checks the tree against what is published, and decodes every tile."""
    return verify_files(_crc.scan("crc_nonorm", _FOLDER, root, INFO, options), INFO)
