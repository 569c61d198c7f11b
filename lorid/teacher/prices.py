"""What tokens cost, and what the rest of a run will cost at that rate.

    cost_of(Usage(input_tokens=1000, output_tokens=200), prices=prices)
    projected(spent=1.5, num_done=500, num_all=7473)      # 22.4

Prices are what the config says: no list of them is kept here, since such lists go stale.
"""

from lorid.sections import PriceConfig
from lorid.teacher.base import Usage


def cost_of(usage: Usage, *, prices: PriceConfig, is_batch: bool = False) -> float:
    """The price of so many tokens, in the prices' currency.

    Cached input is part of the input and has its own price, when one is given.
    """
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    price_cached = prices.cached_input_per_million
    if price_cached is None:
        price_cached = prices.input_per_million
    millionths = (
        (usage.input_tokens - cached) * prices.input_per_million
        + cached * price_cached
        + usage.output_tokens * prices.output_per_million
    )
    return millionths / 1e6 * (prices.batch_discount if is_batch else 1.0)


def projected(*, spent: float, num_done: int, num_all: int) -> float | None:
    """What all of it will cost if the rest is like what is done; None before anything is."""
    return spent / num_done * num_all if num_done > 0 else None
