"""A finished run beside the paper's figures."""

from collections.abc import Mapping

from segfolio.figure import Figure, of_key
from segfolio.ledger.paper import Paper
from segfolio.table import table


def state(figure: Figure, expected: float, ours: float, tolerance: float | None) -> str:
    """`within` or `outside`. Half a unit of the last printed digit is rounding, not distance."""
    return "within" if abs(ours - expected) <= (tolerance or 0.0) + figure.rounding else "outside"


def paper_and_ours(
    name: str, paper: Paper | None, found: Mapping[str, float], declared: Mapping[str, Figure], caveat: str = ""
) -> str:
    """A table: what the paper reports, what this run reached, and whether that is within tolerance.

    Args:
        found: figures of the whole split by log key.
        declared: what they are, by name.
        caveat: the record's; where there is one it stands in for difference and verdict.
    """
    expected = paper.expected if paper else {}
    rows = []
    for key in dict.fromkeys((*expected, *found)):
        theirs, ours = expected.get(key), found.get(key)
        if (figure := of_key(key, declared)) is None:
            continue
        difference = verdict = ""
        if paper and theirs is not None and ours is not None:
            verdict = caveat.partition(":")[0]
            if not caveat:
                difference, tolerance = figure.text(ours - theirs, "+"), paper.tolerance_of(key, figure)
                verdict = f"{state(figure, theirs, ours, tolerance)} (± {figure.text(tolerance)})"
        rows.append((figure.label(key), figure.text(theirs), figure.text(ours), difference, verdict))
    heading = f"{name}: {paper.row}" if paper else name
    text = heading + "\n" + table(("figure", "paper", "ours", "difference", ""), rows, right=(1, 2, 3))
    return text + (f"\n\n{caveat}" if caveat else "")
