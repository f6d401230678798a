"""A finished run beside the paper's figures."""

from collections.abc import Mapping

from segfolio.ledger.paper import Paper
from segfolio.table import table


def state(expected: float, ours: float, tolerance: float) -> str:
    """`within` or `outside`. Half a unit of the last printed digit is rounding, not distance."""
    return "within" if abs(ours - expected) <= tolerance + 5e-4 else "outside"


def paper_and_ours(name: str, paper: Paper | None, figures: Mapping[str, float]) -> str:
    """A table in percent: what the paper reports, what this run reached, and whether that is within tolerance."""
    expected = paper.expected if paper else {}
    rows = []
    for key in dict.fromkeys((*expected, *figures)):
        theirs, ours = expected.get(key), figures.get(key)
        if theirs is None or ours is None:
            rows.append((key, percent(theirs), percent(ours), "", ""))
            continue
        tolerance = paper.tolerance if paper else 0.0
        verdict = f"{state(theirs, ours, tolerance)} (± {percent(tolerance)})"
        rows.append((key, percent(theirs), percent(ours), percent(ours - theirs, "+"), verdict))
    heading = f"{name}: {paper.row}" if paper else name
    return heading + "\n" + table(("%", "paper", "ours", "difference", ""), rows, right=(1, 2, 3))


def percent(value: float | None, sign: str = "") -> str:
    """One digit after the point, `-` for None; `sign="+"` writes a plus."""
    return "-" if value is None else f"{100 * value:{sign}.1f}"
