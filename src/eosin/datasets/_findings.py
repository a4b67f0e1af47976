"""What is not as it should be with a dataset on the disk."""

from dataclasses import dataclass

from eosin.errors import InputError

# In the order in which they are told.
KINDS = {
    "missing": "missing",
    "stray": "do not belong here",
    "label": "labels",
    "count": "counts",
    "unreadable": "unreadable",
    "size": "sizes and modes",
    "duplicate": "the same image twice",
    "group": "groups",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One deviation.

    Attributes:
        kind: one of `KINDS`.
        where: the file, row, split or group that it is about.
        sentence: what is wrong, for people; it names the file.
        is_fatal: whether the dataset cannot be loaded because of it.
    """

    kind: str
    where: str
    sentence: str
    is_fatal: bool = False


def stop_at_fatal(findings: tuple[Finding, ...]) -> None:
    """Goes on only where nothing prevents a dataset from being loaded.

    Raises:
        InputError: something does; the message has the first such finding.
    """
    fatal = [finding.sentence for finding in findings if finding.is_fatal]
    if fatal:
        more = f" ({len(fatal) - 1:,} more like that.)" if len(fatal) > 1 else ""
        raise InputError(fatal[0] + more)
