"""What an audit found, in one plain sentence each, with the numbers beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eosin.audit.overlap import Shared
from eosin.audit.scores import ColourShare, Leak
from eosin.provenance import plain
from eosin.results.statistics import Difference

_MOST_NAMES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        kind: what sort it is, such as `near_duplicates`.
        dataset: name of the dataset.
        is_problem: whether it makes a number untrustworthy, or only says that something is fine or
            was measured.
        sentence: for people.
        facts: for machines.
    """

    kind: str
    dataset: str
    is_problem: bool
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


def near_duplicates(
    dataset: str,
    query: tuple[str, int],
    reference: tuple[str, int],
    pairs: Sequence[Mapping[str, Any]],
) -> Finding:
    """Says how many images of one side have a near-duplicate on the other.

    Args:
        dataset: name.
        query: name and number of images of the side that should be new.
        reference: of the other side.
        pairs: as they are written to `audit.json`.
    """
    images = len({pair["image"] for pair in pairs})
    whose = f"{reference[0]} ({reference[1]:,} images)"
    if not pairs:
        text = f"no {query[0]} image was found to be a near-duplicate of one of {whose}."
    else:
        best = max(pairs, key=lambda pair: pair["correlation"])
        text = (
            f"{images:,} of {query[1]:,} {query[0]} images ({images / query[1]:.1%}) have a "
            f"near-duplicate in {whose}, such as {best['image']} and {best['like']} (correlation "
            f"{best['correlation']:.2f})."
        )
    return Finding(
        kind="near_duplicates",
        dataset=dataset,
        is_problem=bool(pairs),
        sentence=f"{dataset}: {text}",
        facts={
            "split": query[0],
            "against": reference[0],
            "images": images,
            "of_images": query[1],
            "pairs": len(pairs),
        },
    )


def left_out(dataset: str, where: str, what: str, names: Sequence[str], total: int) -> Finding:
    """Says how many images could not be compared: near-constant ones, and unreadable ones."""
    return Finding(
        kind=what.replace(" ", "_").replace("-", "_"),
        dataset=dataset,
        is_problem=what == "unreadable",
        sentence=f"{dataset}: {len(names):,} of {total:,} images of {where} are {what} and were "
        f"not compared, such as {_some(names)}.",
        facts={"where": where, "images": len(names), "of_images": total, "names": list(names)},
    )


def overlap(dataset: str, what: str, first: str, second: str, shared: Sequence[Shared]) -> Finding:
    """Says which patients, slides or groups lie on both sides."""
    names = [each.name for each in shared]
    if shared:
        example = f"{shared[0].first} and {shared[0].second}"
        text = f"{len(names):,} {what} are in {first} and in {second}: {_some(names)} ({example})."
    else:
        text = f"{first} and {second} share no {what}."
    return Finding(
        kind="overlap",
        dataset=dataset,
        is_problem=bool(shared),
        sentence=f"{dataset}: {text}",
        facts={"what": what, "between": [first, second], "shared": plain(list(shared))},
    )


def colour(dataset: str, encoder: str, found: ColourShare) -> Finding:
    """Says how far colour alone comes."""
    histogram, whole = found.histogram, found.encoder
    scores = (
        f"a colour histogram has balanced accuracy {histogram.value:.3f} "
        f"[{histogram.low:.3f}, {histogram.high:.3f}], {encoder} {whole.value:.3f} "
        f"[{whole.low:.3f}, {whole.high:.3f}], and guessing {found.chance:.3f}"
    )
    if whole.value > found.chance:
        share = f"colour reaches {found.share:.0%} [{found.low:.0%}, {found.high:.0%}] of its gain"
    else:
        share = f"{encoder} is no better than guessing, so that no share can be given"
    return Finding(
        kind="colour",
        dataset=dataset,
        is_problem=found.low > 0.5,
        sentence=f"{dataset}: {scores}; {share}.",
        facts={"encoder_name": encoder, **plain(found)},
    )


def random_split(dataset: str, encoder: str, grouped_by: str, folds: int, leak: Leak) -> Finding:
    """Says what a random split by image would add."""
    return Finding(
        kind="random_split",
        dataset=dataset,
        is_problem=False,
        sentence=f"{dataset}: a random split by image adds {_points(leak.added)} to the balanced "
        f"accuracy of a linear probe on {encoder}: {leak.with_leak.value:.3f} instead of "
        f"{leak.without.value:.3f} with whole groups ({grouped_by}), over {folds} folds.",
        facts={"encoder": encoder, "grouped_by": grouped_by, "folds": folds, **plain(leak)},
    )


def duplicate_leak(dataset: str, encoder: str, leak: Leak) -> Finding:
    """Says what the near-duplicates of test images add."""
    return Finding(
        kind="duplicate_leak",
        dataset=dataset,
        is_problem=leak.added.low > 0,
        sentence=f"{dataset}: near-duplicates in the training split add {_points(leak.added)} to "
        f"the balanced accuracy of a linear probe on {encoder}: {leak.with_leak.value:.3f} instead "
        f"of {leak.without.value:.3f} without these {leak.removed:,} training images, both fitted "
        "on as many images.",
        facts={"encoder": encoder, **plain(leak)},
    )


def not_measured(dataset: str, kind: str, why: str) -> Finding:
    """Says why something was not measured."""
    return Finding(kind=kind, dataset=dataset, is_problem=False, sentence=f"{dataset}: {why}")


def _points(added: Difference) -> str:
    return f"{100 * added.value:.1f} points [{100 * added.low:.1f}, {100 * added.high:.1f}]"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"
