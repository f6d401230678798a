"""The ledger as one HTML file: sortable, with pictures, and nothing to fetch."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2

from segfolio.errors import SegfolioError
from segfolio.ledger.compare import percent
from segfolio.ledger.markdown import spread
from segfolio.ledger.rows import STATES, Row

_TEMPLATE = Path(__file__).with_name("page.html")
_PICTURE_WIDTH = 960
_COLUMNS = {  # key in the page's address: heading
    "experiment": "Experiment",
    "figure": "Figure",
    "paper": "Paper",
    "ours": "Ours",
    "difference": "Difference",
    "state": "State",
    "run": "How ours was made",
}
_NUMBERS = ("paper", "ours", "difference")


def page(rows: Sequence[Row]) -> str:
    """A self-contained page of the rows; `#sort=ours&order=descending&find=camvid` in its address is obeyed."""
    pictured: set[Path] = set()
    heads = "".join(
        f'<th scope="col" aria-sort="none" data-key="{key}"{_number(key)}><button>{name}</button></th>'
        for key, name in _COLUMNS.items()
    )
    states = "".join(
        f'<label class="{_slug(state)}" title="{meaning}"><input type="checkbox" value="{state}" checked> '
        f"{state} <b>{count}</b></label>"
        for state, meaning in STATES.items()
        if (count := sum(row.state == state for row in rows))
    )
    filled = {"heads": heads, "states": states, "rows": "\n".join(_row(row, pictured) for row in rows)}
    text = _TEMPLATE.read_text()
    for name, content in filled.items():
        text = text.replace(f"<!-- {name} -->", content)
    return text


def _row(row: Row, pictured: set[Path]) -> str:
    ours = row.ours.mean if row.ours else None
    difference = f"{percent(row.difference, '+')} {_gauge(row)}" if row.difference is not None else "-"
    cells = {
        "experiment": (row.experiment, _experiment(row)),
        "figure": (row.figure, escape(row.figure)),
        "paper": (row.expected, percent(row.expected)),
        "ours": (ours, escape(spread(row.ours))),
        "difference": (row.difference, difference),
        "state": (list(STATES).index(row.state), f'<span class="{_slug(row.state)}">{row.state}</span>'),
        "run": (row.protocol, _run(row, pictured)),
    }
    tds = "".join(
        f'<td data-value="{"" if value is None else escape(str(value))}"{_number(key)}>{content}</td>'
        for key, (value, content) in cells.items()
    )
    return f'<tr data-state="{row.state}">{tds}</tr>'


def _experiment(row: Row) -> str:
    paper = row.paper
    title = escape(paper.title)
    link = f'<a href="https://arxiv.org/abs/{escape(paper.arxiv)}">{title}</a>' if paper.arxiv else title
    notes = "".join(f"<li>{escape(note)}</li>" for note in paper.deviations)
    details = f"<details><summary>deviations</summary><ul>{notes}</ul></details>" if notes else ""
    changed = f"<p><em>with {escape(', '.join(row.overrides))}</em></p>" if row.overrides else ""
    return f"<code>{escape(row.experiment)}</code>{changed}<p>{escape(paper.row)}</p><p>{link}</p>{details}"


def _run(row: Row, pictured: set[Path]) -> str:
    if row.ours is None:
        return ""
    seeds = f"seeds {', '.join(map(str, row.seeds))}"
    facts = f"<p>{escape(row.protocol)}</p><p>{escape(row.hardware)}; {seeds}; <code>{row.commit}</code></p>"
    if row.picture is None or row.picture in pictured:
        return facts
    pictured.add(row.picture)
    alt = f"image, truth, prediction and error of {escape(row.picture.stem)}"
    return f'{facts}<img src="{_data_uri(row.picture)}" alt="{alt}" loading="lazy" tabindex="0">'


def _gauge(row: Row) -> str:
    """The paper's figure as a line, the tolerance as a band around it, ours as a dot with its deviation."""
    if row.ours is None or row.difference is None:
        return ""
    tolerance, std = row.paper.tolerance_of(row.figure) or 0.01, row.ours.std or 0.0
    reach = max(2 * tolerance, abs(row.difference) + std) * 1.1

    def x(value: float) -> float:
        return round(48 + 46 * value / reach, 1)

    left, right, dot = x(-tolerance), x(tolerance), x(row.difference)
    return (
        '<svg viewBox="0 0 96 14" width="96" height="14" aria-hidden="true">'
        f'<rect x="{left}" y="1" width="{right - left:.1f}" height="12" rx="2"/><path d="M48 0V14"/>'
        f'<path class="std" d="M{x(row.difference - std)} 7H{x(row.difference + std)}"/>'
        f'<circle class="{_slug(row.state)}" cx="{dot}" cy="7" r="3.5"/></svg>'
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
    return state.replace(" ", "-")
