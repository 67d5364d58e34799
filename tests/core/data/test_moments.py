"""Streaming moments against NumPy's own."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.data.moments import Moments


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 0), seed=st.integers(0, 99))
def test_pieces_of_any_size_give_the_moments_of_the_whole(sizes: list[int], seed: int) -> None:
    draws = np.random.default_rng(seed)
    for pieces, scale in (
        ([draws.integers(0, 256, (n, 2, 3), np.uint8) for n in sizes], 255),
        ([(draws.normal(1e4, 1e-2, (n, 2, 3))).astype(np.float32) for n in sizes], 1),
    ):
        moments = Moments(3)
        for piece in pieces:
            moments.add(piece)
        whole = np.concatenate(pieces).astype(np.float64) / scale
        np.testing.assert_allclose(moments.mean(), whole.mean((0, 1)), rtol=1e-12)
        np.testing.assert_allclose(moments.std(), whole.std((0, 1)), rtol=1e-6, atol=1e-9)


def test_a_constant_channel_has_no_deviation() -> None:
    moments = Moments(1)
    moments.add(np.full((7, 1), 33, np.uint8))
    assert (moments.mean(), moments.std()) == ((33 / 255,), (0.0,))
