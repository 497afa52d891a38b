"""Fees: head-room at first, enough more on each bump for nodes to accept it, never above the bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fabstir.chain.fees import Fee, bumped_fee, first_fee

WEI = st.integers(0, 2**60)


@given(WEI, WEI, WEI)
def test_a_first_fee_has_headroom_within_the_bound(base: int, tip: int, cap: int) -> None:
    """Twice the base fee and the tip, or the bound; the tip is never above the whole, which nodes refuse."""
    fee = first_fee(base, tip, cap)
    assert fee.max_fee == min(2 * base + tip, cap)
    assert fee.tip == min(tip, fee.max_fee)


@given(st.builds(lambda a, b: Fee(max(a, b), min(a, b)), WEI, WEI), WEI, WEI)
def test_a_bump_is_one_that_nodes_accept_or_none(last: Fee, base: int, cap: int) -> None:
    """Both fees rise by a tenth at least, the tip stays within the whole, nothing passes the bound."""
    fee = bumped_fee(last, base, cap)
    if fee is None:
        assert cap * 100 < max(last.max_fee * 110, (last.tip * 5 // 4 + 1) * 100)
        return
    assert fee.max_fee <= cap
    assert fee.max_fee * 100 >= last.max_fee * 110
    assert fee.tip * 100 >= last.tip * 110
    assert fee.tip <= fee.max_fee


def test_a_bump_follows_a_base_fee_that_ran_away() -> None:
    """A quarter more would still be below what the chain asks now."""
    assert bumped_fee(Fee(21, 1), 1_000, 10**9) == Fee(2_002, 2)
