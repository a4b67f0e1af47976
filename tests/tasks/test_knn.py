import numpy as np

from eosin.datasets._base import LabelledImages
from eosin.results.schema import DataStamp, EncoderStamp
from eosin.tasks._base import Embedded, Split
from eosin.tasks.knn import Config, run


def far_from_the_origin(count: int, name: str) -> Split:
    """Two classes that differ in direction, seen from a mean that outweighs all differences."""
    generator = np.random.default_rng(len(name))
    labels = np.arange(count) % 2
    features = (
        generator.normal(size=(count, 8)) + np.where(labels, 2.0, -2.0)[:, None] * np.eye(8)[0]
    )
    scale = generator.uniform(0.5, 4, (count, 1))
    images = LabelledImages(
        dataset="far",
        split=name,
        ids=tuple(f"{name}/{number}" for number in range(count)),
        labels=labels,
        groups=np.array([f"{name}/{number}" for number in range(count)]),
        grouped_by="image",
        classes=("a", "b"),
        reader=lambda index: np.zeros((8, 8, 3), np.uint8),
        manifest_sha256=name,
        split_sha256="division",
    )
    return Split(images=images, embeddings=(features * scale + 30_000).astype(np.float32))


def test_a_mean_that_all_embeddings_share_does_not_hide_their_differences() -> None:
    embedded = Embedded(
        encoder=EncoderStamp(
            name="e", weights_sha256="w", transform="t", pooling="p", precision="fp32", embed_dim=8
        ),
        data=DataStamp(
            name="far",
            manifest_sha256="m",
            split_sha256="d",
            n_train=200,
            n_test=100,
            classes=("a", "b"),
        ),
        train=far_from_the_origin(200, "train"),
        valid=None,
        tests={"none": far_from_the_origin(100, "test")},
    )
    ((result, _),) = run(Config(), embedded)
    assert result.metrics["accuracy"].value > 0.9
    assert result.selection["k"] in (1, 3, 5, 10, 20, 50)
