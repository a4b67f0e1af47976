from dataclasses import replace

import numpy as np

from eosin.finetuning.image_cache import ImageCache, reduce
from tests.finetuning.textures import images, texture


def test_images_are_read_once_while_there_is_room() -> None:
    read: list[int] = []
    plain = images("train", 4)

    def reader(index: int) -> np.ndarray:
        read.append(index)
        return plain.reader(index)

    splits = {"train": replace(plain, reader=reader)}
    room_for_two = ImageCache(splits, 32, most_bytes=2 * plain.read(0).nbytes)
    for _ in range(3):
        for index in range(4):
            assert np.array_equal(room_for_two.read("train", index), plain.read(index))
    assert [read.count(index) for index in range(4)] == [1, 1, 3, 3]


def test_large_images_are_reduced_to_twice_the_input() -> None:
    large = texture(1, 0, height=300, width=400)
    reduced = reduce(large, 64)
    assert reduced.shape == (64, 85, 3)
    assert np.allclose(reduced.mean((0, 1)), large.mean((0, 1)), atol=1)
    flat = np.full((300, 400, 3), (10, 200, 77), dtype=np.uint8)
    assert np.array_equal(reduce(flat, 64), flat[:64, :85])
    assert np.array_equal(reduce(large, 300), large)
    plain = replace(images("train", 4), reader=lambda index: large)
    assert ImageCache({"train": plain}, 32).read("train", 1).shape == (64, 85, 3)
