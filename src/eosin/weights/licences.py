"""Licences that must be accepted before weights are fetched, and the record that they were."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime

from eosin.errors import InputError
from eosin.weights.local_records import add_record, read_records, weights_folder

_RECORDS = "licences.json"


@dataclass(frozen=True, kw_only=True)
class Licence:
    """Terms under which weights may be used.

    Attributes:
        key: what its acceptance is recorded under.
        title: its name.
        short: its name and gist in one line.
        version: which text was read; another version has to be accepted anew.
        url: where its text is.
        terms: what it allows and asks for, a line each; the text itself is what counts.
    """

    key: str
    title: str
    short: str
    version: str
    url: str
    terms: tuple[str, ...]

    def __str__(self) -> str:
        """The summary that is shown before it is accepted."""
        lines = [f"{self.title} ({self.version}), in short; the text itself counts:"]
        return "\n".join([*lines, *(f"  - {term}" for term in self.terms), f"  {self.url}"])


LUNIT = Licence(
    key="lunit-public-license",
    title="Lunit Public License",
    short="Lunit Public License: non-commercial use, attribution",
    version="commit 7e8dfac of 2023-04-10",
    url="https://github.com/lunit-io/benchmark-ssl-pathology/blob/main/LICENSE",
    terms=(
        "Use, share and adapt the weights, and what is derived from them, for non-commercial "
        "purposes only.",
        "Whoever shares them, changed or not, names Lunit Inc., says what was changed, and gives "
        "the licence or a link to it.",
        "No patent applications or similar claims, and no patent rights are granted.",
        "As they are, without warranty; you indemnify Lunit Inc. against claims from your use.",
        "It is revocable, may be changed without notice, and ends if you break it.",
    ),
)


def accepted_on(licence: Licence) -> str | None:
    """When this version of a licence was accepted for this weights folder; None if never.

    Raises:
        InputError: the record is damaged.
    """
    record = read_records(_RECORDS).get(licence.key, {})
    return str(record.get("accepted")) if record.get("version") == licence.version else None


def require_acceptance(licence: Licence, *, accept: bool, command: str) -> None:
    """Goes on only under an accepted licence, which is shown and recorded when it first is.

    The summary goes to standard error.

    Args:
        licence: the terms.
        accept: whether the user accepts them now.
        command: what to type to accept them.

    Raises:
        InputError: the licence was not accepted before and is not now.
    """
    if accepted_on(licence) is not None:
        return
    print(licence, file=sys.stderr)
    if not accept:
        raise InputError(
            f"The {licence.title} of these weights was not accepted yet. Read it "
            f"({licence.url}); to accept it, type: {command}"
        )
    record = {
        "title": licence.title,
        "version": licence.version,
        "url": licence.url,
        "accepted": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    add_record(_RECORDS, licence.key, record)
    print(f"Accepted; recorded in {weights_folder() / _RECORDS}.", file=sys.stderr)
