"""A finished run beside the paper's figures."""

from collections.abc import Mapping

from segfolio.ledger.paper import UNITS, Paper
from segfolio.table import table


def state(expected: float, ours: float, tolerance: float) -> str:
    """`within` or `outside`. Half a unit of the last printed digit is rounding, not distance."""
    return "within" if abs(ours - expected) <= tolerance + 5e-4 else "outside"


def paper_and_ours(name: str, paper: Paper | None, figures: Mapping[str, float], caveat: str = "") -> str:
    """A table in percent: what the paper reports, what this run reached, and whether that is within tolerance.

    Args:
        caveat: the record's; where there is one it stands in for difference and verdict.
    """
    expected = paper.expected if paper else {}
    rows = []
    measures = {key: unit for key in figures if (unit := UNITS.get(key.partition("/")[2]))}
    for key in dict.fromkeys((*expected, *(key for key in figures if key not in measures))):
        theirs, ours = expected.get(key), figures.get(key)
        difference = verdict = ""
        if paper and theirs is not None and ours is not None:
            verdict = caveat.partition(":")[0]
            if not caveat:
                difference = percent(ours - theirs, "+")
                tolerance = paper.tolerance_of(key)
                verdict = f"{state(theirs, ours, tolerance)} (± {percent(tolerance)})"
        rows.append((key, percent(theirs), percent(ours), difference, verdict))
    heading = f"{name}: {paper.row}" if paper else name
    text = heading + "\n" + table(("%", "paper", "ours", "difference", ""), rows, right=(1, 2, 3))
    measured = "".join(f"\n{key}  {figures[key]:.3g} {unit}" for key, unit in measures.items())
    return text + measured + (f"\n\n{caveat}" if caveat else "")


def percent(value: float | None, sign: str = "") -> str:
    """One digit after the point, `-` for None; `sign="+"` writes a plus."""
    return "-" if value is None else f"{100 * value:{sign}.1f}"
