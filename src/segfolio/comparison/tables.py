"""A comparison as tables of Markdown."""

import os
from collections.abc import Sequence
from pathlib import Path

from segfolio.comparison.rows import Compared, pretraining
from segfolio.figure import Figure
from segfolio.ledger.markdown import pipes
from segfolio.ledger.text import spread


def markdown(rows: Sequence[Compared], seen_from: Path) -> str:
    """Every figure under every protocol with what it took, then each class, then what pretraining brought.

    Args:
        seen_from: the folder of the page, for its links.
    """
    ran = [row for row in rows if row.main_figure is not None]
    if not ran:
        return f"Not run yet: {', '.join(_link(row, seen_from) for row in rows)}."
    figure = ran[0].main_figure
    assert figure is not None
    parts = [_figures(rows, figure, seen_from), _classes(ran, figure), _pretraining(rows, figure)]
    return "\n\n".join(filter(None, parts))


def _figures(rows: Sequence[Compared], figure: Figure, seen_from: Path) -> str:
    further = [f"test/{protocol}/{figure.name}" for protocol in protocols(rows, figure)]
    shown = {f"test/{figure.name}": figure.label(figure.name), **{key: key.split("/")[1] for key in further}}
    columns = {
        "experiment": [_link(row, seen_from) for row in rows],
        "parameters": [_number(row.mean("parameters"), 1e6, 2, " M") for row in rows],
        **{heading: [spread(figure, row.figures.get(key)) for row in rows] for key, heading in shown.items()},
        "steps": [_number(row.mean("steps"), 1, 0) for row in rows],
        "minutes": [_number(row.mean("wall_time"), 60, 1) for row in rows],
        "minutes of one core": [_number(row.mean("processor_time"), 60, 1) for row in rows],
    }
    known = {heading: column for heading, column in columns.items() if set(column) != {"-"}}
    return pipes(list(known), list(zip(*known.values(), strict=True)), numbers=len(known) - 1)


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


def protocols(rows: Sequence[Compared], figure: Figure) -> list[str]:
    """The names of the further protocols that the main figure was found under."""
    keys = dict.fromkeys(key for row in rows for key in row.figures)
    return [key.split("/")[1] for key in keys if key.count("/") == 2 and key.endswith(f"/{figure.name}")]


def _number(value: float | None, unit: float, digits: int, name: str = "") -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}{name}"


def _link(row: Compared, seen_from: Path) -> str:
    return f"[{row.name}]({Path(os.path.relpath(row.file, seen_from)).as_posix()})"
