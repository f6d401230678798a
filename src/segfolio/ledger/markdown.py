"""The ledger as text: for the terminal, and as `experiments/RESULTS.md`."""

from collections.abc import Sequence
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


def plain(rows: Sequence[Row]) -> str:
    """The short table that the terminal shows."""
    header = ("experiment", "figure", "paper", "ours (seeds)", "difference", "state")
    cells = [
        (r.experiment, r.figure, percent(r.expected), spread(r.ours), percent(r.difference, "+"), r.state) for r in rows
    ]
    return table(header, cells, right=(2, 3, 4))


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
    return "\n\n".join(parts) + "\n"


def _titles(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.paper.title for row in rows))


def _table(rows: Sequence[Row], title: str) -> str:
    arxiv = rows[0].paper.arxiv
    header = ("experiment", "row", "figure", "paper", "ours", "difference", "state", "protocol", "commit", "hardware")
    lines = [f"| {' | '.join(header)} |", "|---|---|---|--:|--:|--:|---|---|---|---|"]
    for row in rows:
        name = row.experiment.rpartition("/")[2]
        cells = (
            f"[{name}]({row.experiment}.yaml){_overridden(row)}",
            row.paper.row,
            row.figure,
            percent(row.expected),
            spread(row.ours),
            percent(row.difference, "+"),
            f"{row.state} (± {percent(row.paper.tolerance_of(row.figure))})"
            if row.difference is not None
            else row.state,
            row.protocol,
            row.commit,
            row.hardware,
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    link = f" ([arXiv {arxiv}](https://arxiv.org/abs/{arxiv}))" if arxiv else ""
    return f"## {title}{link}\n\n" + "\n".join(lines)


def _overridden(row: Row) -> str:
    return f" with {', '.join(row.overrides)}" if row.overrides else ""
