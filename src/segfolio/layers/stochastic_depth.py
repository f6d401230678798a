"""Stochastic depth (Huang et al., 2016, arXiv 1603.09382, section 3) of networks in stages."""

from collections.abc import Sequence


def rates_of(drop_path: float, blocks: Sequence[int]) -> list[list[float]]:
    """Of each block of each stage: from 0 at the first to `drop_path` at the last, in equal steps.

    Args:
        blocks: how many each stage has.
    """
    total, first, rates = max(1, sum(blocks) - 1), 0, []
    for number in blocks:
        rates.append([drop_path * index / total for index in range(first, first + number)])
        first += number
    return rates
