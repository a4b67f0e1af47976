"""NCT-CRC-HE-100K and CRC-VAL-HE-7K: colorectal tissue, stain-normalised."""

from pathlib import Path

from eosin.datasets import _crc
from eosin.datasets._base import Archive, LabelledImages, Options
from eosin.datasets._findings import Finding
from eosin.datasets._verify import verify_files

_FOLDER = "NCT-CRC-HE-100K"

INFO = _crc.make_info(
    "NCT-CRC-HE-100K with CRC-VAL-HE-7K, stain-normalised",
    _FOLDER,
    Archive(
        url="https://zenodo.org/records/1214456/files/NCT-CRC-HE-100K.zip?download=1",
        hosts=("zenodo.org",),
        checksum="md5:6fd702d11df6292bc054397ae038a464",
        gives=_FOLDER,
        most_bytes=40_000_000_000,
        size_bytes=11_690_284_003,
    ),
    remarks=(
        "eva declares the md5 035777cf327776a71a05c95da6d6325f for this archive, without checking "
        "it; that is the hash of the archive that is not normalised. Those who checked what they "
        "fetched give the one here.",
        "It is not known whether the paper trained on this archive or on the one that is not "
        "normalised; UNI uses the latter.",
    ),
)


def recognises(root: Path) -> bool:
    """Whether the normalised training tiles lie in `root`."""
    return (root / _FOLDER).is_dir()


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits that `load` takes here.

    Raises:
        InputError: the training or the test tiles are missing.
    """
    return _crc.scan("crc", _FOLDER, root, INFO, options).splits


def load(root: Path, split: str, options: Options) -> LabelledImages:
    """Loads the training or the test tiles.

    Raises:
        InputError: they are missing, or a tile cannot be read.
    """
    return _crc.scan("crc", _FOLDER, root, INFO, options).load(split)


def verify(root: Path, options: Options) -> list[Finding]:
    """Checks the tree against what is published, and decodes every tile."""
    return verify_files(_crc.scan("crc", _FOLDER, root, INFO, options), INFO)
