"""A claim: a sentence and the interval that supports it, or does not."""

import os

from kdlab.base import arguments
from kdlab.evidence.intervals import Comparison


def claim(sentence: str, comparison: Comparison) -> None:
    """Print the sentence with its estimate and interval; AssertionError where it does not hold.

    comparison: an `Estimate` beside a bound, for example distilled.minus(direct) > 0. With the
    environment variable KDLAB_CLAIMS=report (other data, where a lesson's claim is a question) it
    only says so.

    >>> import pandas as pd
    >>> from kdlab import Estimate
    >>> gain = Estimate(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0}), "gain", "points", 2)
    >>> claim("it helps", gain > 0)
    Claim: it helps
    holds: gain +2.00 ± 1.30 points (> 0); 95 % interval over 4 splits,
    each with its own teacher; 2 seeds a split
    """
    arguments.text("claim", "sentence", sentence)
    if not isinstance(comparison, Comparison):
        raise TypeError(
            "claim: comparison must be an Estimate beside a bound, "
            f"as in distilled.minus(direct) > 0, got {type(comparison).__name__}"
        )
    e = comparison.estimate
    nested = "a split" if "split" in e.units else "each"
    seeds = f"; {e.seeds} seed{'s' if e.seeds > 1 else ''} {nested}" if e.seeds else ""
    text = (
        f"{e.what} {e} ({comparison.relation}); 95 % interval over {len(e.values)} {e.units}{seeds}"
    )
    if not comparison and os.environ.get("KDLAB_CLAIMS") != "report":
        raise AssertionError(f"Claim does not hold: {sentence}\n{text}")
    print(f"Claim: {sentence}\n{'holds' if comparison else 'DOES NOT HOLD HERE'}: {text}")
