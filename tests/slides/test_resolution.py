import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.slides.resolution import MPP_TOLERANCE, choose_reading, is_plausible_mpp

_ALL = (1, 2, 4, 8)
_SCALES = st.sampled_from([(1,), (1, 2), (1, 2, 4), _ALL])


@settings(deadline=None)
@given(
    slide_mpp=st.floats(0.05, 3) | st.integers(50, 3000).map(lambda nm: nm / 1000),
    steps=st.lists(st.floats(1.5, 4.5) | st.sampled_from([2.0, 4.0]), max_size=4),
    scales=_SCALES,
    mpp=st.floats(0.05, 40) | st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0]),
)
def test_a_reading_reaches_the_target_and_never_enlarges(
    slide_mpp: float, steps: list[float], scales: tuple[int, ...], mpp: float
) -> None:
    downsamples = [math.prod(steps[:number]) for number in range(len(steps) + 1)]
    reading = choose_reading(slide_mpp, downsamples, [scales] * len(downsamples), mpp)
    if reading is None:
        assert slide_mpp > mpp
        return
    assert reading.mpp == pytest.approx(mpp, rel=MPP_TOLERANCE + 1e-6)
    assert reading.mpp == pytest.approx(slide_mpp * reading.downsample)
    assert reading.reduction >= 1
    assert reading.scale in scales
    assert reading.downsample == pytest.approx(
        downsamples[reading.level] * reading.scale * reading.reduction
    )
    # No coarser level, and no coarser decoding of it, would have served.
    if not reading.is_native:
        limit = mpp * (1 - MPP_TOLERANCE - 1e-6)
        finer = [one for one in downsamples if slide_mpp * one < limit]
        assert downsamples[reading.level] >= max(finer, default=0)
        coarser = [scale for scale in scales if scale > reading.scale]
        assert all(slide_mpp * downsamples[reading.level] * scale > mpp for scale in coarser)


@pytest.mark.parametrize(
    ("slide_mpp", "mpp", "expected"),
    [
        (0.25, 0.25, (0, 1, 1.0, 0.25)),
        (0.2505, 0.25, (0, 1, 1.0, 0.2505)),
        (0.25, 0.5, (0, 2, 1.0, 0.5)),
        (0.2527, 0.5, (0, 2, 1.0, 0.5054)),
        (0.255, 0.5, (0, 2, 1.0, 0.51)),
        (0.2265, 0.5, (0, 2, 0.5 / 0.453, 0.5)),
        (0.25, 1.0, (1, 1, 1.0, 1.0)),
        (0.25, 0.75, (0, 2, 1.5, 0.75)),
        (0.25, 2.0, (1, 2, 1.0, 2.0)),
        (0.25, 40.0, (2, 8, 1.25, 40.0)),
    ],
)
def test_readings_of_a_slide_with_levels_of_1_4_and_16(
    slide_mpp: float, mpp: float, expected: tuple[int, int, float, float]
) -> None:
    reading = choose_reading(slide_mpp, [1.0, 4.0, 16.0], [_ALL] * 3, mpp)
    assert reading is not None
    level, scale, reduction, reached = expected
    assert (reading.level, reading.scale) == (level, scale)
    assert (reading.reduction, reading.mpp) == pytest.approx((reduction, reached))


@pytest.mark.parametrize("mpp", [0.255, 0.153, 0.51])
def test_exactly_two_percent_off_counts_as_close_whatever_the_last_bit(mpp: float) -> None:
    target = {0.255: 0.5, 0.153: 0.3, 0.51: 0.5}[mpp]
    reading = choose_reading(mpp, [1.0], [_ALL], target)
    assert reading is not None and reading.reduction == 1


def test_pixels_are_never_made_finer_than_a_level_holds() -> None:
    assert choose_reading(0.5, [1.0, 2.0], [_ALL] * 2, 0.25) is None
    assert choose_reading(0.511, [1.0], [_ALL], 0.5) is None
    assert choose_reading(0.509, [1.0], [_ALL], 0.5) is not None


def test_a_reading_says_how_it_is_made() -> None:
    texts = [
        str(choose_reading(0.25, [1.0, 4.0], [_ALL] * 2, mpp)) for mpp in (0.25, 0.5, 0.3, 0.75)
    ]
    assert texts == [
        "level 0",
        "level 0, decoded at 1/2",
        "level 0, averaged by 1.200",
        "level 0, decoded at 1/2, averaged by 1.500",
    ]
    native = choose_reading(0.25, [1.0], [_ALL], 0.25)
    reduced = choose_reading(0.25, [1.0], [_ALL], 0.5)
    assert native is not None and native.is_native
    assert reduced is not None and not reduced.is_native


@pytest.mark.parametrize("mpp", [0.02, 0.25, 50.0])
def test_resolutions_of_microscopes(mpp: float) -> None:
    assert is_plausible_mpp(mpp)


@pytest.mark.parametrize("mpp", [-0.5, 0.0, 0.01, 352.8, math.inf, math.nan])
def test_resolutions_of_no_microscope(mpp: float) -> None:
    assert not is_plausible_mpp(mpp)
