"""One run of `eosin embed`: what it embeds with what, and when it has to end."""

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eosin import provenance
from eosin.embeddings import matrix_file
from eosin.embeddings.cache import what_computes
from eosin.embeddings.config import Config
from eosin.embeddings.extract import Batch, Extractor
from eosin.embeddings.sources import Given, Joined
from eosin.encoders import Encoder
from eosin.engine import distributed
from eosin.engine.sharing import Flag
from eosin.errors import InputError, Interrupted, UsageError
from eosin.weights import load_encoder

FORMAT, FORMAT_VERSION = "eosin embeddings", 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedReport:
    """What a run did."""

    out: Path
    files: tuple[Path, ...]
    """What it wrote, or found finished: the matrix, or the folders of the slides' files."""
    embeddings: int
    embed_dim: int
    bytes: int
    done: int
    """Images that this run embedded."""
    unreadable: Mapping[str, str]
    """Images that have no embedding, by id, each with the reason."""
    seconds: float

    @property
    def exit_code(self) -> int:
        """3 if an image could not be read, else 0."""
        return 3 if self.unreadable else 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """An encoder, images, and the settings of a run."""

    config: Config
    encoder: Encoder
    given: Given
    images: Joined
    what: Mapping[str, Any]
    """All that the embeddings depend on but the images."""

    @property
    def expected(self) -> int | None:
        """On how many images the back end chooses its way; a slide's bits depend on no other's."""
        return len(self.images) if self.config.layout == "matrix" else None

    @property
    def flag(self) -> Flag:
        """What tells the other processes of `torchrun` to stop."""
        return Flag(self.config.out / ".stopped")

    def make(self, batches: Iterable[range]) -> Generator[Batch]:
        """Embeds batches here, or on the Ray cluster, where they come in any order."""
        config = self.config
        if config.ray is not None:
            from eosin.embeddings import actors

            job = actors.Job(
                encoder=self.encoder,
                given=self.given,
                config=config.embedding,
                expected=self.expected,
            )
            # So that the actors of a run that ends early end too.
            with closing(actors.run(job, list(batches), config.ray)) as made:
                yield from made
            return
        extractor = Extractor(
            self.encoder,
            self.images,
            config.embedding,
            skips_unreadable=True,
            expected=self.expected,
        )
        with closing(extractor.run(batches)) as made:
            yield from made

    def check(self, unreadable: Mapping[int, str], stop: Callable[[], bool]) -> None:
        """Ends the work where it was asked to stop, or where too much is unreadable.

        Raises:
            Interrupted: this process or another one was asked to stop.
            InputError: more than `--max-unreadable` of the images cannot be read.
        """
        if stop() or self.flag.is_up():
            self.flag.hoist()
            raise Interrupted("Stopped; the same command goes on with what is left.")
        if len(unreadable) > self.config.max_unreadable * len(self.images):
            index, reason = next(iter(unreadable.items()))
            raise InputError(
                f"{len(unreadable):,} of {len(self.images):,} images cannot be read, which is more "
                f"than --max-unreadable {self.config.max_unreadable:g} allows; the first is "
                f"{self.images.name(index)}: {reason}"
            )

    def named(self, unreadable: Mapping[int, str]) -> dict[str, str]:
        """Gives images by their ids."""
        return {self.images.name(index): reason for index, reason in sorted(unreadable.items())}


def open_work(config: Config) -> Work:
    """Loads the encoder and opens the data; nothing is written.

    Raises:
        InputError: the encoder or the data cannot be used.
        UsageError: options contradict each other.
    """
    if config.ray is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--ray and torchrun do not go together; start one process.")
    encoder = load_encoder(config.encoder)
    if config.pooling is not None and config.pooling != encoder.pooling:
        encoder = encoder.with_pooling(config.pooling)
    given = Given(
        data=config.data,
        dataset=config.dataset,
        # Slides stay whole in the layout that has a file for each.
        limit=config.limit if config.layout == "matrix" else None,
    )
    what = {**what_computes(encoder, config.embedding), "dtype": config.dtype}
    return Work(config=config, encoder=encoder, given=given, images=given.open(), what=what)


def stamp(work: Work, report: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the content of `embed.json`: what the embeddings are and how they came about."""
    encoder, config = work.encoder, work.config
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "encoder": {
            "name": encoder.name,
            "architecture": encoder.architecture,
            "weights_sha256": work.what["weights"],
            "transform": encoder.transform_id(),
            "pooling": encoder.pooling,
            "embed_dim": encoder.embed_dim,
            "provenance": provenance.plain(encoder.card.provenance),
        },
        "precision": work.what["precision"],
        "backend": work.what["backend"],
        "dtype": config.dtype,
        "batch_size": config.embedding.batch_size,
        "processes": distributed.world_size(),
        "data": [
            {"path": name, "kind": source.kind, "images": len(source)}
            | {"manifest_sha256": source.manifest_sha256}
            for name, source in zip(work.images.names, work.images.sources, strict=True)
        ],
        "limit": config.limit,
        **report,
        "provenance": provenance.stamp(),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names what was otherwise, for error messages."""
    return "; ".join(
        f"{name} was {_short(before.get(name))} and is now {_short(value)}"
        for name, value in now.items()
        if before.get(name) != value
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def bytes_of(work: Work, count: int) -> int:
    """Size of so many embeddings."""
    return count * work.encoder.embed_dim * matrix_file.DTYPES[work.config.dtype].itemsize


def plain_report(report: EmbedReport) -> dict[str, Any]:
    """Gives a report as JSON can hold it."""
    facts: dict[str, Any] = provenance.plain(asdict(report))
    return facts
