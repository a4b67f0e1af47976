"""`eosin embed`: an encoder and images give embeddings that other tools read."""

from eosin.embeddings import matrix_run, trident
from eosin.embeddings.config import Config
from eosin.embeddings.work import EmbedReport, open_work
from eosin.engine.distributed import process_group
from eosin.engine.precision import default_device
from eosin.engine.sharing import together
from eosin.errors import Interrupted

__all__ = ["Config", "EmbedReport", "embed_images"]


def embed_images(config: Config) -> EmbedReport:
    """Embeds all images that are not embedded yet.

    With `torchrun` each process embeds its share, and the result is the same, bit by bit on CPUs
    with as many threads; `--out` must lie where all of them see it. Images that cannot be read are
    left out and named.

    Raises:
        UsageError: options make no sense.
        InputError: encoder or data cannot be used, too many images cannot be read, an embedding is
            not finite, or `--out` holds other embeddings.
        Interrupted: stopped, or the disk is full; the same command goes on.
    """
    with process_group(default_device()):
        work = together(lambda: open_work(config))
        try:
            return trident.run(work) if config.layout == "trident" else matrix_run.run(work)
        except OSError as error:
            raise Interrupted(
                f"{config.out} cannot be written ({error}); mend that, and the same command "
                "goes on."
            ) from error
