"""The ledger as `experiments/RESULTS.md`: what was run, all systems at a glance, and every row of every paper."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from segfolio.ledger.rows import STATES, Cell, Row
from segfolio.ledger.text import counts, difference, headings, on_the_same_data, seeds, spread

_MARKS = {"within": " ✓", "outside": " ✗"}
_HEAD = """# Results

Written by `make results` from the experiments and the results beside them; not to be edited. Ratios are in percent,
other figures in the unit that is named; ↓ marks those of which less is better. Ours is mean ± standard deviation
(number of seeds); ✓ is within the tolerance of the paper's figure, ✗ outside. What needs no run is counted on the
network of the experiment: parameters, receptive field, stride and layers are within to the last digit that the paper
prints, FLOPs within 3 %. A multiply-add is one FLOP; what counts as one is said with each. Times are told as ratios to
a network of the same table, ours the median (number of rounds)."""


class Notes:
    """Footnotes, each said once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def mark(self, text: str) -> str:
        """`[^1]`, of one text always the same."""
        return f"[^{self.numbers.setdefault(text, len(self.numbers) + 1)}]"

    def text(self) -> str:
        return "\n".join(f"[^{number}]: {text}" for text, number in self.numbers.items())


def markdown(rows: Sequence[Row]) -> str:
    """`RESULTS.md`."""
    notes = Notes()
    parts = [_HEAD, "## What was run", *(_ran(same, notes) for same in on_the_same_data(rows))]
    parts += ["## All systems", "How many figures are in each state.", _matrix(rows), _legend()]
    parts += ["## Every row", "In bold, ours; the others are the papers'."]
    by_paper = sorted(rows, key=lambda row: (row.system, row.paper.title, not row.experiment, row.file.stem))
    for (_, title, arxiv), group in groupby(by_paper, key=lambda r: (r.system, r.paper.title, r.paper.arxiv)):
        parts += [_title(title, arxiv), _paper(list(group), notes)]
    return "\n\n".join([*parts, notes.text()]).rstrip() + "\n"


def _ran(rows: Sequence[Row], notes: Notes) -> str:
    """Experiments on the same data, side by side."""
    figures = headings(rows)
    header = (rows[0].dataset or "experiment", *figures.values(), "how")
    lines = []
    for row in rows:
        cells = {cell.key: spread(cell.figure, cell.ours) + _MARKS.get(cell.state, "") for cell in row.cells}
        how = f"{seeds(row)}; {row.hardware}; {row.commit} {notes.mark(row.protocol)}"
        lines.append((_link(row), *(cells.get(key, "") for key in figures), how))
    return pipes(header, lines, numbers=len(figures))


def _matrix(rows: Sequence[Row]) -> str:
    """System x state."""
    by_system = counts(rows)
    total = sum(by_system.values(), Counter())
    shown = [state for state in STATES if total[state]]
    lines = [(f"[{system}]({system})", *(str(count[s] or "") for s in shown)) for system, count in by_system.items()]
    lines.append(("**all**", *(f"**{total[s]}**" for s in shown)))
    return pipes(("system", *(_MARKS.get(state, state).strip() for state in shown)), lines, numbers=len(shown))


def _legend() -> str:
    return "\n".join(f"- *{state}*{_MARKS.get(state, '')}: {meaning}" for state, meaning in STATES.items())


def _paper(rows: Sequence[Row], notes: Notes) -> str:
    figures = headings(rows) | headings(rows, counted=True)
    lines = []
    for row in rows:
        cells = {cell.key: _cell(cell, notes) for cell in row.cells}
        how = notes.mark(row.protocol) if row.ran else row.before
        lines.append((_link(row), row.paper.row, *(cells.get(key, "") for key in figures), how))
    return pipes(("experiment", "row", *figures.values(), "how"), lines, numbers=len(figures), texts=2)


def _cell(cell: Cell, notes: Notes) -> str:
    """`46.4, **45.5 ± 0.7 (2)** within`; of a ratio with the factor between both; of what was not run the paper's
    figure alone."""
    expected = cell.figure.text(cell.expected)
    if cell.ours is None:
        return expected
    ours = f"**{spread(cell.figure, cell.ours)}** {cell.state}"
    if cell.factor is not None:
        ours += f" ({difference(cell)})"
    ours += notes.mark(cell.note) if cell.note else ""
    return ours if cell.expected is None else f"{expected}, {ours}"


def _link(row: Row) -> str:
    changed = f" with {', '.join(row.overrides)}" if row.overrides else ""
    return f"[{row.experiment or 'claims'}]({row.system}/{row.file.name}){changed}"


def _title(title: str, arxiv: str) -> str:
    return f"### {title}" + (f" ([arXiv {arxiv}](https://arxiv.org/abs/{arxiv}))" if arxiv else "")


def pipes(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: int, texts: int = 1) -> str:
    """A table of Markdown: `texts` columns to the left, then `numbers` to the right, and what remains to the left."""
    rest = len(header) - texts - numbers
    ruler = "|" + "---|" * texts + "--:|" * numbers + "---|" * rest
    lines = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    return "\n".join([f"| {' | '.join(header)} |", ruler, *lines])
