"""What `eosin embed` would give and cost, from its first batches; nothing is written."""

import time
from contextlib import closing
from dataclasses import dataclass

from eosin.embeddings.config import Config
from eosin.embeddings.extract import batches_of
from eosin.embeddings.work import bytes_of, open_work
from eosin.engine.precision import default_device
from eosin.errors import UsageError

_WARM_UP, _TIMED = 1, 4  # batches


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be expected of a run."""

    encoder: str
    images: int
    sources: tuple[str, ...]
    embed_dim: int
    bytes: int
    images_per_s: float
    hours: float
    precision: str
    backend: str
    device: str

    def __str__(self) -> str:
        minutes = self.hours * 60
        took = f"{minutes:,.1f} minutes" if minutes < 120 else f"{self.hours:,.1f} hours"
        took = f"{minutes * 60:,.0f} seconds" if minutes < 2 else took
        return "\n".join(
            [
                f"{self.images:,} images give embeddings of {self.embed_dim:,} values with "
                f"{self.encoder}, {self.bytes / 1e6:,.1f} MB.",
                *self.sources,
                f"Measured: {self.images_per_s:,.1f} images/s ({self.backend}, {self.precision}, "
                f"{self.device}), so about {took} in one process.",
            ]
        )


def plan_embedding(config: Config) -> Plan:
    """Embeds a few batches and throws them away.

    Raises:
        UsageError: options make no sense.
        InputError: encoder or data cannot be used.
    """
    if config.ray is not None:
        raise UsageError("--plan measures this machine; leave --ray out.")
    work = open_work(config)
    batches = batches_of(len(work.images), config.embedding.batch_size)[: _WARM_UP + _TIMED]
    rate = 0.0
    with closing(work.make(batches)) as made:
        started, counted = time.perf_counter(), 0
        for number, batch in enumerate(made):
            if number == 0 and len(batches) > 1:
                started = time.perf_counter()
                continue
            counted += len(batch.images)
            rate = counted / (time.perf_counter() - started)
    count = len(work.images)
    return Plan(
        encoder=work.encoder.name,
        images=count,
        sources=tuple(
            f"  {len(source):,} of the {source.kind} {name}"
            for name, source in zip(work.images.names, work.images.sources, strict=True)
        ),
        embed_dim=work.encoder.embed_dim,
        bytes=bytes_of(work, count),
        images_per_s=rate,
        hours=count / rate / 3600,
        precision=str(work.what["precision"]),
        backend=str(work.what["backend"]),
        device=str(default_device()),
    )
