"""Which bytes a weight file must have: as published, or as the first file of its name had."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from eosin.errors import InputError
from eosin.provenance import sha256_of_file
from eosin.weights.local_records import add_record, read_records, weights_folder

_RECORDS = "checksums.json"


@dataclass(frozen=True)
class Expected:
    """What a file's sha256 must be.

    Attributes:
        sha256: the hash; None where nothing is known yet.
        source: `published`, `recorded` or `unknown`.
    """

    sha256: str | None
    source: str


def expected_checksum(file: str, published: str | None) -> Expected:
    """What the sha256 of a weight file must be.

    Args:
        file: its name.
        published: its sha256 where it is known to everybody.

    Raises:
        InputError: the record of checksums is damaged.
    """
    if published is not None:
        return Expected(published, "published")
    recorded = read_records(_RECORDS).get(file, {}).get("sha256")
    return Expected(None, "unknown") if recorded is None else Expected(str(recorded), "recorded")


def check_checksum(path: Path, file: str, published: str | None) -> str:
    """Gives the sha256 of a file if it is what it must be.

    Args:
        path: the file.
        file: the name that it has in the release.
        published: its sha256 where it is known to everybody.

    Raises:
        InputError: it is not; the message has both hashes.
    """
    expected, found = expected_checksum(file, published), sha256_of_file(path)
    if expected.sha256 in (None, found):
        return found
    if expected.source == "published":
        raise InputError(
            f"{path} is not the released {file} ({path.stat().st_size:,} bytes): its sha256 is "
            f"{found}, published is {expected.sha256}. It is cut short, damaged or another file."
        )
    raise InputError(
        f"{path} is not the {file} that was here first: its sha256 is {found}, recorded was "
        f"{expected.sha256}. To accept the new one, if you trust it, delete the entry "
        f"{file!r} from {weights_folder() / _RECORDS} and repeat."
    )


def record_checksum(file: str, sha256: str, origin: str) -> str:
    """Records the sha256 that later files of this name must have, and says so in a line.

    Args:
        file: the name in the release.
        sha256: of the first file that came.
        origin: where it came from.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    add_record(_RECORDS, file, {"sha256": sha256, "origin": origin, "recorded": now})
    return (
        f"Nobody has published the sha256 of {file}; that of this one, {sha256}, is recorded in "
        f"{weights_folder() / _RECORDS}, and later ones must match."
    )
