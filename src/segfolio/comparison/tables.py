"""A comparison as tables of Markdown."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from segfolio.comparison.rows import Compared, pretraining
from segfolio.figure import HOUSE, Figure
from segfolio.ledger.markdown import pipes
from segfolio.ledger.text import spread


def markdown(rows: Sequence[Compared], seen_from: Path) -> str:
    """Every figure under every protocol with what it took, then each class, then what pretraining brought.

    Args:
        seen_from: the folder of the page, for its links.
    """
    ran = [row for row in rows if row.main_figure is not None]
    figure = ran[0].main_figure if ran else None
    if figure is None and not any(row.times for row in rows):
        return f"Not run yet: {', '.join(_link(row, seen_from) for row in rows)}."
    parts = [_figures(rows, figure, seen_from)]
    if figure is not None:
        parts += [_classes(ran, figure), _pretraining(rows, figure)]
    return "\n\n".join(filter(None, parts))


def _figures(rows: Sequence[Compared], figure: Figure | None, seen_from: Path) -> str:
    columns = {
        "experiment": [_link(row, seen_from) for row in rows],
        "parameters": [_number(row.parameters, 1e6, 2, " M") for row in rows],
    }
    for heading, (key, each) in (_shown(rows, figure) if figure else {}).items():
        columns[heading] = [spread(each, row.figures.get(key)) for row in rows]
    for heading in dict.fromkeys(heading for row in rows for heading in row.times):
        seconds = (median(row.times[heading].seconds) if heading in row.times else None for row in rows)
        columns[heading] = [_number(each, 1, 2, " s") for each in seconds]
    columns |= {
        "steps": [_number(row.mean("steps"), 1, 0) for row in rows],
        "minutes": [_number(row.mean("wall_time"), 60, 1) for row in rows],
        "minutes of one core": [_number(row.mean("processor_time"), 60, 1) for row in rows],
    }
    known = {heading: column for heading, column in columns.items() if set(column) != {"-"}}
    table = pipes(list(known), list(zip(*known.values(), strict=True)), numbers=len(known) - 1)
    return "\n\n".join(filter(None, [table, next((f"Times of {row.how}." for row in rows if row.times), "")]))


def _shown(rows: Sequence[Compared], figure: Figure) -> dict[str, tuple[str, Figure]]:
    """By heading the main figure, and that of each further protocol: the same, or where it has not that, its own."""
    found = {figure.label(figure.name): (f"test/{figure.name}", figure)}
    of_protocols: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for row in rows for key in row.figures if key.count("/") == 2):
        of_protocols.setdefault(key.split("/")[1], []).append(key.split("/")[2])
    for protocol, names in of_protocols.items():
        if figure.name in names:
            found[protocol] = f"test/{protocol}/{figure.name}", figure
        elif own := _own([name for name in names if name in HOUSE]):
            found[f"{protocol}, {own}"] = f"test/{protocol}/{own}", HOUSE[own]
    return found


def _own(names: Sequence[str]) -> str | None:
    """By which of its figures a protocol is known; proposals by the recall of the most."""
    recalls = [name for name in names if re.fullmatch(r"AR_\d+(_box)?", name)]
    if recalls:
        return max(recalls, key=lambda name: int(name.split("_")[1]))
    return min(names, key=list(HOUSE).index, default=None)


def _classes(ran: Sequence[Compared], figure: Figure) -> str:
    """A line for each experiment, a column for each class."""
    known = [row for row in ran if row.classes]
    if not known:
        return ""
    names = list(dict.fromkeys(name for row in known for name in row.classes))
    lines = [(row.name, *(figure.text(row.classes.get(name)) for name in names)) for row in known]
    return pipes((f"{figure.name.removeprefix('m')} of", *names), lines, numbers=len(names))


def _pretraining(rows: Sequence[Compared], figure: Figure) -> str:
    pairs = list(pretraining(rows))
    if not pairs:
        return ""
    header = ("what pretraining brought", "pretrained", "from random weights", "difference")
    lines = []
    for one, other in pairs:
        known, gain = (each.figures[each.main] for each in (one, other) if each.main), (one.value, other.value)
        brought = figure.text((gain[0] or 0.0) - (gain[1] or 0.0), "+")
        lines.append((one.name, *(spread(figure, value) for value in known), brought))
    return pipes(header, lines, numbers=3)


def _number(value: float | None, unit: float, digits: int, name: str = "") -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}{name}"


def _link(row: Compared, seen_from: Path) -> str:
    return f"[{row.name}]({Path(os.path.relpath(row.file, seen_from)).as_posix()})"
