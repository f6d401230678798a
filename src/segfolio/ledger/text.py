"""The ledger for the terminal, and what its other forms share."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from segfolio.figure import Figure
from segfolio.ledger.results import Spread
from segfolio.ledger.rows import Cell, Row
from segfolio.table import table

_SHORTEST = 24
"""Characters of a name that are shown in any case."""


def spread(figure: Figure, ours: Spread | None) -> str:
    """`46.2 ± 0.4 (3)`: mean, standard deviation, seeds."""
    if ours is None:
        return "-"
    deviation = f" ± {figure.text(ours.std)}" if ours.std is not None else ""
    return f"{figure.text(ours.mean)}{deviation}" + (f" ({ours.n})" if ours.n else "")


def difference(cell: Cell) -> str:
    """`-0.9` in the figure's unit; of a ratio `x 0.82`, the factor from the paper's to ours."""
    return cell.figure.text(cell.difference, "+") if cell.factor is None else f"x {cell.factor:.2f}"


def ways(rows: Sequence[Row]) -> list[str]:
    """How ratios were measured, each said once."""
    return list(dict.fromkeys(cell.note for row in rows for cell in row.cells if cell.state == "ratio"))


def seeds(row: Row) -> str:
    """`seed 0`, `seeds 0, 1`."""
    return f"seed{'s' * (len(row.seeds) > 1)} {', '.join(map(str, row.seeds))}"


def on_the_same_data(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """What was run, together where it was trained and tested on the same data."""
    ran = sorted((row for row in rows if row.ran), key=lambda row: (row.dataset, row.data))
    for _, group in groupby(ran, key=lambda row: row.data):
        yield list(group)


def counts(rows: Sequence[Row]) -> dict[str, Counter[str]]:
    """Of each system, how many figures are in each state."""
    found: dict[str, Counter[str]] = {system: Counter() for system in sorted({row.system for row in rows})}
    for row in rows:
        found[row.system].update(row.states)
    return found


def headings(rows: Sequence[Row], counted: bool = False) -> dict[str, str]:
    """The figures of rows, each once: key and heading; of runs, or those that are `counted` without."""
    cells = (cell for row in rows for cell in row.cells if cell.counted == counted)
    return {cell.key: cell.figure.label(cell.name) for cell in cells}


def plain(rows: Sequence[Row], width: int) -> str:
    """A line for each figure, and side by side what experiments on the same data have under several protocols.

    Args:
        width: of the terminal, in characters; names that are too long for it are cut.
    """
    header = ("experiment", "figure", "paper", "ours (seeds)", "difference", "state")
    lines = [(row.name, *figure) for row in rows for figure in _figures(row)]
    tables = [_fitting(header, lines, width)]
    for same in on_the_same_data(rows):
        names = headings(same)
        if len(same) > 1 and any("/" in key.removeprefix("test/") for key in names):
            found = [{cell.key: spread(cell.figure, cell.ours) for cell in row.cells} for row in same]
            cells = [(row.name, *(ours.get(key, "-") for key in names)) for row, ours in zip(same, found, strict=True)]
            tables.append(_fitting(("experiment", *names.values()), cells, width))
    return "\n\n".join([*tables, *ways(rows)])


def _figures(row: Row) -> Iterator[tuple[str, ...]]:
    if row.own:
        yield "-", "-", "-", "-", row.own
    for cell in row.cells:
        figure = cell.figure
        ours = spread(figure, cell.ours), difference(cell)
        yield figure.label(cell.name), figure.text(cell.expected), *ours, cell.state


def _fitting(header: Sequence[str], lines: Sequence[Sequence[str]], width: int) -> str:
    """A table of names and what is said of them, the last column to the left where it is the state."""
    rest = sum(2 + max(map(len, column)) for column in list(zip(header, *lines, strict=True))[1:])
    room = max(_SHORTEST, width - rest)
    short = [(name if len(name) <= room else name[: room - 1] + "…", *others) for name, *others in lines]
    right = range(2 if header[-1] == "state" else 1, len(header) - (header[-1] == "state"))
    return table(header, short, right=right)
