"""The ledger as one HTML file: sortable, with pictures, and nothing to fetch."""

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import cv2

from segfolio.errors import SegfolioError
from segfolio.ledger.rows import STATES, Cell, Row
from segfolio.ledger.text import counts, difference, seeds, spread, ways

_TEMPLATE = Path(__file__).with_name("page.html")
_PICTURE_WIDTH = 960
_COLUMNS = {  # key in the page's address: heading
    "experiment": "Experiment",
    "figure": "Figure",
    "paper": "Paper",
    "ours": "Ours",
    "difference": "Difference",
    "state": "State",
}
_NUMBERS = ("paper", "ours", "difference")


def page(rows: Sequence[Row]) -> str:
    """A self-contained page of the rows; `#sort=ours&order=descending&find=camvid` in its address is obeyed.

    A row is sorted by its first figure, and shown while one of its figures is in a state that is chosen.
    """
    pictured: set[Path] = set()
    by_system = counts(rows)
    total = sum(by_system.values(), Counter())
    present = [state for state in STATES if total[state]]
    states = "".join(
        f'<label class="{_slug(state)}" title="{STATES[state]}">'
        f'<input type="checkbox" value="{state}" checked> {state} <b>{total[state]}</b></label>'
        for state in present
    )
    titles = {row.system: escape(row.paper.title) for row in reversed(rows)}
    matrix = [
        [f'<a href="#find={system}">{system}</a>', titles[system], *(str(count[state] or "") for state in present)]
        for system, count in by_system.items()
    ]
    filled = {
        "states": states,
        "ran": _table([row for row in rows if row.ran], pictured),
        "matrix": _matrix(["System", "Paper", *present], matrix),
        "others": _table([row for row in rows if not row.ran], pictured),
    }
    text = _TEMPLATE.read_text()
    for name, content in filled.items():
        text = text.replace(f"<!-- {name} -->", content)
    return text


def _table(rows: Iterable[Row], pictured: set[Path]) -> str:
    heads = "".join(
        f'<th scope="col" aria-sort="none" data-key="{key}"{_number(key)}><button>{name}</button></th>'
        for key, name in _COLUMNS.items()
    )
    body = "\n".join(_row(row, pictured) for row in rows)
    return f'<table class="rows"><thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table>'


def _matrix(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col" class="{_slug(name)}">{name}</th>' for name in header)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="matrix"><thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table>'


def _row(row: Row, pictured: set[Path]) -> str:
    first = next((cell for cell in row.cells if not cell.counted), None)
    own = [""] * bool(row.own)  # a line for its state, which is of no figure
    values = {
        "experiment": row.name,
        "figure": first and first.key,
        "paper": first and first.expected,
        "ours": first.ours.mean if first and first.ours else None,
        "difference": first and first.difference,
        "state": list(STATES).index(row.states[0]),
    }
    content = {
        "experiment": _experiment(row) + _picture(row, pictured),
        "figure": _lines([*own, *(_figure(cell) for cell in row.cells)]),
        "paper": _lines([*own, *(cell.figure.text(cell.expected) for cell in row.cells)]),
        "ours": _lines([*own, *(spread(cell.figure, cell.ours) for cell in row.cells)]),
        "difference": _lines([*own, *(_difference(cell) for cell in row.cells)]),
        "state": _lines(f'<span class="{_slug(state)}">{state}</span>' for state in row.states),
    }
    tds = "".join(
        f'<td data-value="{"" if (value := values[key]) is None else escape(str(value))}"{_number(key)}>{html}</td>'
        for key, html in content.items()
    )
    found = escape(f"{row.name} {row.paper.title} {row.dataset}")
    return f'<tr data-states="{"|".join(row.states)}" data-find="{found}">{tds}</tr>'


def _lines(texts: Iterable[str]) -> str:
    return "".join(f"<p>{text}</p>" for text in texts)


def _figure(cell: Cell) -> str:
    """Its name; the whole of it, and how it is counted, show over it."""
    label = escape(cell.figure.label(cell.name))
    said = ": ".join(filter(None, (label, escape(cell.note))))
    return f'<abbr title="{said}">{label}</abbr>' if cell.note or " of " in cell.name else label


def _experiment(row: Row) -> str:
    paper = row.paper
    name = f"<code>{escape(row.experiment)}</code>" if row.experiment else ""
    changed = f"<p><em>with {escape(', '.join(row.overrides))}</em></p>" if row.overrides else ""
    title = escape(f"arXiv {paper.arxiv}" if paper.arxiv else paper.title)
    address, hint = f"https://arxiv.org/abs/{escape(paper.arxiv)}", escape(paper.title)
    link = f'<a href="{address}" title="{hint}">{title}</a>' if paper.arxiv else title
    notes = [*(f"<li>{escape(note)}</li>" for note in paper.deviations)]
    why = "deviations" if row.experiment else "why not here"
    return (
        f"{name}{changed}<p>{escape(paper.row)}</p><footer>{link}{_details('how it was run', _facts(row))}"
        f"{_details(why, notes)}</footer>"
    )


def _facts(row: Row) -> list[str]:
    measured = [f"<li>{escape(how)}</li>" for how in ways([row])]
    if not row.ran:
        return measured
    trained = f"<li>{escape(row.hardware)}; {seeds(row)}; <code>{row.commit}</code></li>"
    return [f"<li>{escape(row.protocol)}</li>{trained}", *measured]


def _details(summary: str, items: Sequence[str]) -> str:
    return f"<details><summary>{summary}</summary><ul>{''.join(items)}</ul></details>" if items else ""


def _picture(row: Row, pictured: set[Path]) -> str:
    """The panel of a test, at the first of its rows."""
    if row.picture is None or row.picture in pictured:
        return ""
    pictured.add(row.picture)
    alt = f"image, truth, prediction and error of {escape(row.picture.stem)}"
    return f'<img src="{_data_uri(row.picture)}" alt="{alt}" loading="lazy" tabindex="0">'


def _difference(cell: Cell) -> str:
    """The difference, and a drawing: the paper's figure a line, the tolerance a band, ours a dot with its deviation."""
    if cell.ours is None or cell.difference is None:
        return difference(cell)
    tolerance = cell.tolerance or 2 * cell.figure.rounding
    distance, std = cell.difference, cell.ours.std or 0.0
    reach = max(2 * tolerance, abs(distance) + std) * 1.1

    def x(value: float) -> float:
        return round(48 + 46 * value / reach, 1)

    left, right = x(-tolerance), x(tolerance)
    return (
        f"{difference(cell)} "
        '<svg viewBox="0 0 96 14" width="96" height="14" aria-hidden="true">'
        f'<rect x="{left}" y="1" width="{right - left:.1f}" height="12" rx="2"/><path d="M48 0V14"/>'
        f'<path class="std" d="M{x(distance - std)} 7H{x(distance + std)}"/>'
        f'<circle class="{_slug(cell.state)}" cx="{x(distance)}" cy="7" r="3.5"/></svg>'
    )


def _data_uri(path: Path) -> str:
    if (image := cv2.imread(str(path))) is None:
        raise SegfolioError(f"{path} cannot be read as a picture; remove it, or test the run again")
    scale = min(1.0, _PICTURE_WIDTH / image.shape[1])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, 80])
    return f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()}"


def _number(key: str) -> str:
    return ' class="number"' if key in _NUMBERS else ""


def _slug(state: str) -> str:
    return state.replace(" ", "-").lower()
