"""The draws are functions: fixed by golden values, uniform by statistics, blind to batch size and order."""

import pytest
import torch

from core.random import integers, key_of, order, rival, signs, uniforms

ROWS = torch.arange(200_000)
KEY = key_of(0, "statistics")

GOLDEN_KEY = 6824046467115778298
GOLDEN_UNIFORMS = [[3766891, 8277049], [12798714, 7540925], [2550948, 6543671]]
GOLDEN_INTEGERS = [[5, 8], [3, 5], [1, 3], [4, 5], [8, 3]]
GOLDEN_ORDER = [3, 7, 2, 6, 4, 5, 0, 1]


def test_the_golden_draws_never_change() -> None:
    key = key_of(1, "crop", 2)
    assert key.item() == GOLDEN_KEY
    assert key.dtype == torch.int64
    assert key.shape == ()
    assert torch.equal((uniforms(key, torch.tensor([0, 1, 999_999]), 2, 3) * 2**24).long(), torch.tensor(GOLDEN_UNIFORMS))
    assert integers(key, torch.arange(5), 9, 2).tolist() == GOLDEN_INTEGERS
    assert order(3, 1, 8).tolist() == GOLDEN_ORDER


def test_the_mixer_is_the_finaliser_of_splitmix64() -> None:
    """The first outputs of SplitMix64 seeded with 0 and with 1234567, as its authors and Rosetta Code list them."""
    from core.random import _GOLDEN, _mix

    assert _mix(torch.tensor(_GOLDEN)).item() % 2**64 == 0xE220A8397B1DCDAF
    assert _mix(torch.tensor(1234567) + _GOLDEN).item() % 2**64 == 6457827717110365317


def test_uniforms_have_the_mean_spread_and_independence_of_uniforms() -> None:
    draws = torch.cat([uniforms(KEY, ROWS, 2, stream) for stream in (0, 1)], dim=1).double()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert (draws.mean(0) - 0.5).abs().max() < 5 * (1 / 12 / len(ROWS)) ** 0.5
    assert (draws.std(0) - 12**-0.5).abs().max() < 2e-3
    between = torch.corrcoef(draws.T) - torch.eye(4)
    assert between.abs().max() < 5 / len(ROWS) ** 0.5
    neighbours = torch.corrcoef(torch.stack([draws[1:, 0], draws[:-1, 0]]))[0, 1]
    assert neighbours.abs() < 5 / len(ROWS) ** 0.5
    counts = torch.histc(draws[:, 0], bins=100, min=0, max=1)
    chi2 = ((counts - 2000) ** 2 / 2000).sum()
    assert 50 < chi2 < 160


def test_integers_fill_their_range_evenly() -> None:
    draws = integers(KEY, ROWS, 9)
    counts = torch.bincount(draws[:, 0], minlength=9)
    assert len(counts) == 9
    expected = len(ROWS) / 9
    assert ((counts - expected) ** 2 / expected).sum() < 30
    assert integers(KEY, ROWS[:4], 1).eq(0).all()


def test_signs_are_even_independent_and_each_rows_own() -> None:
    draws = signs(KEY, torch.arange(200), 1000)
    assert draws.shape == (200, 1000)
    assert set(draws.flatten().tolist()) == {-1.0, 1.0}
    assert draws.mean().abs() < 5 / draws.numel() ** 0.5
    for other in (draws.roll(1, 0), draws.roll(1, 1), draws.roll(64, 1), signs(KEY, torch.arange(200), 1000, stream=1)):
        assert (draws * other).mean().abs() < 5 / draws.numel() ** 0.5
    assert torch.equal(signs(KEY, torch.tensor([7]), 70), draws[7:8, :70])


def test_a_draw_depends_on_its_row_and_not_on_the_batch_around_it() -> None:
    whole = uniforms(KEY, ROWS[:100], 3)
    assert torch.equal(uniforms(KEY, torch.tensor([42]), 3)[0], whole[42])
    assert torch.equal(uniforms(KEY, ROWS[:100].flip(0), 3).flip(0), whole)
    assert torch.equal(uniforms(KEY, ROWS[:100], 5)[:, :3], whole)


def test_a_key_tells_numbers_from_words_and_one_order_from_another() -> None:
    keys = {key_of(1).item(), key_of("1").item(), key_of(1, 2).item(), key_of(2, 1).item(), key_of("1, 2").item(), key_of().item()}
    assert len(keys) == 6


def test_keys_and_orders_are_made_on_the_host_whatever_the_default_device_is() -> None:
    with torch.device("meta"):
        assert key_of(1, "crop", 2).item() == GOLDEN_KEY
        assert order(3, 1, 8).tolist() == GOLDEN_ORDER


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    first = order(0, 0, 1000)
    assert torch.equal(first.sort().values, torch.arange(1000))
    assert not torch.equal(first, order(0, 1, 1000))
    assert not torch.equal(first, order(1, 0, 1000))
    assert torch.equal(first, order(0, 0, 1000))
    assert order(0, 0, 0).shape == (0,)


def test_a_range_that_is_empty_or_too_wide_is_an_error() -> None:
    for high in (0, -1, (1 << 31) + 1):
        with pytest.raises(ValueError, match="high"):
            integers(KEY, ROWS[:1], high)


def test_a_rival_is_drawn_with_the_probabilities_without_the_top_class() -> None:
    logits = torch.tensor([[0.6, 0.3, 0.08, 0.02]]).log() + 5
    even = torch.arange(1000) / 1000
    counts = torch.bincount(rival(logits.expand(1000, 4), even), minlength=4).tolist()
    assert counts == [0, pytest.approx(750, abs=1), pytest.approx(200, abs=1), pytest.approx(50, abs=1)]
    ends = torch.tensor([0.0, 1 - 2.0**-24])
    assert rival(torch.tensor([[9.0, 0.0, 0.0, -200.0]]).expand(2, 4), ends).tolist() == [1, 2]  # never the one of no probability
    assert rival(torch.tensor([[1.0, 2.0]]).expand(2, 2), ends).tolist() == [0, 0]
