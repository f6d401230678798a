"""The ledger as text: for the terminal, and as `experiments/RESULTS.md`."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from segfolio.ledger.compare import percent
from segfolio.ledger.results import Spread
from segfolio.ledger.rows import STATES, Row
from segfolio.table import table


def spread(ours: Spread | None) -> str:
    """`46.2 ± 0.4 (3)`: mean, standard deviation, seeds."""
    if ours is None:
        return "-"
    return percent(ours.mean) + (f" ± {percent(ours.std)}" if ours.std is not None else "") + f" ({ours.n})"


def side_by_side(rows: Sequence[Row]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header and rows of a table for each figure that experiments on the same data have under several protocols."""
    for data in dict.fromkeys(row.data for row in rows if row.data):
        same = [row for row in rows if row.data == data]
        for name in dict.fromkeys(_name(row) for row in same if row.figure.count("/") == 2):
            found = {(row.experiment + _overridden(row), row.figure): row.ours for row in same if _name(row) == name}
            experiments, figures = (list(dict.fromkeys(keys)) for keys in zip(*found, strict=True))
            if len(experiments) > 1:
                yield (
                    ["experiment", *figures],
                    [[e, *(spread(found.get((e, f))) for f in figures)] for e in experiments],
                )


def plain(rows: Sequence[Row]) -> str:
    """What the terminal shows: a short table, and those of `side_by_side`."""
    header = ("experiment", "figure", "paper", "ours (seeds)", "difference", "state")
    cells = [
        (r.experiment, r.figure, percent(r.expected), spread(r.ours), percent(r.difference, "+"), r.state) for r in rows
    ]
    tables = [table(header, cells, right=(2, 3, 4))]
    tables += [table(names, values, right=range(1, len(names))) for names, values in side_by_side(rows)]
    return "\n\n".join(tables)


def markdown(rows: Sequence[Row]) -> str:
    """`RESULTS.md`: a table per paper."""
    parts = [
        "# Results",
        "Written by `make results` from the experiments and the results beside them; not to be edited. Figures in "
        "percent; ours is mean ± standard deviation (number of seeds).",
        "\n".join(f"- *{state}*: {meaning}" for state, meaning in STATES.items()),
    ]
    for _, group in groupby(rows, key=lambda row: Path(row.experiment).parent):
        papers = list(group)
        parts += [_table([r for r in papers if r.paper.title == title], title) for title in _titles(papers)]
    if compared := list(side_by_side(rows)):
        parts.append("## Side by side\n\nOn the same data, under the protocols of the same test.")
        parts += [_pipes(header, cells, "---|" + "--:|" * (len(header) - 1)) for header, cells in compared]
    return "\n\n".join(parts) + "\n"


def _titles(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.paper.title for row in rows))


def _table(rows: Sequence[Row], title: str) -> str:
    arxiv = rows[0].paper.arxiv
    header = ("experiment", "row", "figure", "paper", "ours", "difference", "state", "protocol", "commit", "hardware")
    cells = [
        (
            f"[{row.experiment.rpartition('/')[2]}]({row.experiment}.yaml){_overridden(row)}",
            row.paper.row,
            row.figure,
            percent(row.expected),
            spread(row.ours),
            percent(row.difference, "+"),
            row.state + ("" if row.difference is None else f" (± {percent(row.paper.tolerance_of(row.figure))})"),
            row.protocol,
            row.commit,
            row.hardware,
        )
        for row in rows
    ]
    link = f" ([arXiv {arxiv}](https://arxiv.org/abs/{arxiv}))" if arxiv else ""
    return f"## {title}{link}\n\n" + _pipes(header, cells, "---|---|---|--:|--:|--:|---|---|---|---|")


def _pipes(header: Sequence[str], rows: Sequence[Sequence[str]], ruler: str) -> str:
    """A table of Markdown."""
    lines = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    return "\n".join([f"| {' | '.join(header)} |", f"|{ruler}", *lines])


def _name(row: Row) -> str:
    """Of its figure: `mIoU` of `test/slide/mIoU`."""
    return row.figure.rpartition("/")[2]


def _overridden(row: Row) -> str:
    return f" with {', '.join(row.overrides)}" if row.overrides else ""
