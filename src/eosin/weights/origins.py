"""What weights were made from, as far back as their provenance tells, and the licences of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eosin.weights.catalogue import RELEASED
from eosin.weights.licences import LUNIT

INIT = "init"
"""Key of a provenance under which the encoder that training started from has its own."""

# What changes when the same weights are exported again.
_OF_AN_EXPORT = {"name", "exported", "evaluation"}
# Identifiers of the Hub's list of licences; whether all that they ask for is attribution.
_HUB_LICENCES = {
    "apache-2.0": True,
    "mit": True,
    "bsd-2-clause": True,
    "bsd-3-clause": True,
    "cc0-1.0": True,
    "cc-by-4.0": True,
    "cc-by-sa-4.0": False,
    "cc-by-nc-4.0": False,
    "cc-by-nc-sa-4.0": False,
    "cc-by-nd-4.0": False,
    "cc-by-nc-nd-4.0": False,
    "gpl-3.0": False,
    "agpl-3.0": False,
}


@dataclass(frozen=True, kw_only=True)
class Inherited:
    """A licence that weights have from what they were made from.

    Attributes:
        encoder: whose licence it is.
        text: as its provenance words it.
        hub_id: its identifier on the Hugging Face Hub, `other` where the Hub has none.
        hub_name: what the Hub calls it where it has no identifier.
        link: where its text is.
        terms: what it allows and asks for, a line each, where Eosin knows.
        shares_freely: whether it lets anybody pass the weights on, for any use.
    """

    encoder: str
    text: str
    hub_id: str
    hub_name: str | None = None
    link: str | None = None
    terms: tuple[str, ...] = ()
    shares_freely: bool = False


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """One encoder on the way from the first weights to those at hand.

    Attributes:
        name: how it is called.
        provenance: how its weights came about.
    """

    name: str
    provenance: Mapping[str, Any]

    @property
    def starts_from(self) -> str:
        """The name of what its training started from, empty for random weights."""
        config = self.provenance.get("config")
        return str(config.get("init") or "") if isinstance(config, Mapping) else ""

    @property
    def was_trained_here(self) -> bool:
        """Whether a run of Eosin made it."""
        return "method" in self.provenance and isinstance(self.provenance.get("config"), Mapping)

    @property
    def is_random(self) -> bool:
        """Whether it was never trained."""
        return self.provenance.get("initialisation") == "random"

    @property
    def is_own(self) -> bool:
        """Whether nothing of others is in its weights: a run of Eosin made it from random ones."""
        return self.is_random or (self.was_trained_here and not self.starts_from)


def ancestors(name: str, provenance: Mapping[str, Any]) -> list[Ancestor]:
    """Lists an encoder and what its weights were made from, newest first."""
    found = [Ancestor(name=name, provenance=provenance)]
    while isinstance(init := found[-1].provenance.get(INIT), Mapping):
        inner = init.get("provenance")
        inner = inner if isinstance(inner, Mapping) else {}
        found.append(Ancestor(name=str(init.get("name", "unnamed")), provenance=inner))
    oldest = found[-1]
    # Older runs recorded the name alone, which for a released encoder says enough.
    if oldest.starts_from in RELEASED:
        licence = {"licence": RELEASED[oldest.starts_from].licence.short}
        found.append(Ancestor(name=oldest.starts_from, provenance=licence))
    return found


def with_ancestor(
    provenance: Mapping[str, Any], name: str, of_encoder: Mapping[str, Any]
) -> dict[str, Any]:
    """Adds to a provenance that of the encoder that training started from, if that has one.

    Args:
        provenance: of the new weights.
        name: of the encoder that training started from.
        of_encoder: its provenance, as its card still has it after training.
    """
    known = {key: value for key, value in of_encoder.items() if key not in _OF_AN_EXPORT}
    is_same = all(key in provenance and provenance[key] == known[key] for key in known)
    if INIT in provenance or is_same or of_encoder.get("initialisation") == "random":
        return dict(provenance)
    return {**provenance, INIT: {"name": name, "provenance": dict(of_encoder)}}


def without_paths(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Cuts the path of a folder that training started from down to its last part."""
    config = provenance.get("config")
    init = config.get("init") if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(init, str) or not _is_path(init):
        return dict(provenance)
    return {**provenance, "config": {**config, "init": Path(init).name}}


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or (":" not in name and Path(name).exists())


def inherited_licences(name: str, provenance: Mapping[str, Any]) -> list[Inherited]:
    """Gives the licences along the way to the first weights, newest first, each once."""
    found: dict[str, Inherited] = {}
    for ancestor in ancestors(name, provenance):
        text = ancestor.provenance.get("licence")
        if text:
            found.setdefault(str(text), _look_up(ancestor, str(text)))
    return list(found.values())


def hub_id(licences: Sequence[Inherited]) -> str:
    """What the Hub calls one licence, or several at once."""
    return licences[0].hub_id if len(licences) == 1 else "other"


def _look_up(ancestor: Ancestor, text: str) -> Inherited:
    if LUNIT.title.lower() in text.lower():
        return Inherited(
            encoder=ancestor.name,
            text=LUNIT.short,
            hub_id="other",
            hub_name=LUNIT.key,
            link=LUNIT.url,
            terms=LUNIT.terms,
        )
    words = re.sub(r"[\s_]+", "-", text.strip().lower())
    for hub_id in sorted(_HUB_LICENCES, key=len, reverse=True):
        if re.match(re.escape(hub_id) + r"(?![a-z0-9.])", words):
            return Inherited(
                encoder=ancestor.name,
                text=text,
                hub_id=hub_id,
                link=_link(ancestor),
                shares_freely=_HUB_LICENCES[hub_id],
            )
    slug = re.sub(r"[^a-z0-9.-]+", "-", words).strip("-")[:60]
    return Inherited(
        encoder=ancestor.name,
        text=text,
        hub_id="other",
        hub_name=slug or "unnamed",
        link=_link(ancestor),
    )


def _link(ancestor: Ancestor) -> str | None:
    """Where the licence can be read: what the provenance says, or the repository on the Hub."""
    for key in ("licence_url", "licence_link"):
        if isinstance(link := ancestor.provenance.get(key), str):
            return link
    repo = ancestor.provenance.get("repo")
    return f"https://huggingface.co/{repo}" if isinstance(repo, str) else None
