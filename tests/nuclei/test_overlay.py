"""Outlines lie inside their nuclei, in the colour of the type."""

import numpy as np
import pytest

from eosin.nuclei.overlay import colours, draw, outlines

CLASSES = ("a", "b", "c")


def two_nuclei():
    instances = np.zeros((30, 40), np.int32)
    instances[5:15, 5:15], instances[5:15, 15:25] = 1, 2  # side by side
    return instances, np.array([2, 0])


def test_each_nucleus_is_outlined_in_the_colour_of_its_type():
    instances, types = two_nuclei()
    image = np.full((30, 40, 3), 200, np.uint8)
    drawn = draw(image, (instances, types), CLASSES)
    assert (image == 200).all()
    for number, name in ((1, "c"), (2, "a")):
        inner = np.zeros((30, 40), bool)
        left = 5 + 10 * (number - 1)
        inner[6:14, left + 1 : left + 9] = True
        border = (instances == number) & ~inner
        assert (drawn[border] == colours(CLASSES)[name]).all()
        assert (drawn[inner] == 200).all()
    assert (drawn[instances == 0] == 200).all()


def test_thick_outlines_stay_inside():
    instances, _ = two_nuclei()
    thin, thick = outlines(instances), outlines(instances, 3)
    assert (thin.sum(), thick.sum()) == (2 * (100 - 64), 2 * (100 - 16))
    assert (thick[thin]).all() and not thick[instances == 0].any()


def test_nuclei_at_the_border_of_the_image_are_open_there():
    assert not outlines(np.ones((5, 5), np.int32)).any()


def test_true_nuclei_are_dashed_over_the_others():
    instances, types = two_nuclei()
    truth = np.zeros((30, 40), np.int32)
    truth[18:28, 5:35] = 1
    image = np.full((30, 40, 3), 200, np.uint8)
    drawn = draw(image, (instances, types), CLASSES, truth=(truth, np.array([1])))
    border = drawn[outlines(truth)]
    dashes = (border == colours(CLASSES)["b"]).all(1)
    assert 0.3 < dashes.mean() < 0.7 and (border[~dashes] == 200).all()
    alone = draw(image, (instances, types), CLASSES)
    np.testing.assert_array_equal(drawn[:16], alone[:16])


def test_colours_repeat_after_the_eighth_class():
    found = list(colours([str(place) for place in range(10)]).values())
    assert len(set(found[:8])) == 8 and found[8:] == found[:2]


def test_an_image_without_nuclei_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    drawn = draw(image, (np.zeros((8, 9), np.int32), np.zeros(0, np.int64)), CLASSES)
    np.testing.assert_array_equal(drawn, image)


def test_what_does_not_belong_together_is_refused():
    instances, types = two_nuclei()
    image = np.zeros((30, 40, 3), np.uint8)
    for wrong in ((instances[:9], types), (instances, types[:1]), (instances, types + 1)):
        with pytest.raises(ValueError, match=r"map|type"):
            draw(image, wrong, CLASSES)
