"""`segfolio compare`: experiments side by side, in the terminal or in a page that says which."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from segfolio.comparison.chart import chart
from segfolio.comparison.rows import Compared, compared
from segfolio.comparison.tables import markdown
from segfolio.errors import SegfolioError
from segfolio.files import write_atomically
from segfolio.ledger.command import Parser

_BLOCK = re.compile(r"(<!-- compare (?P<what>[^\n]+) -->\n).*?(<!-- compared -->)", re.DOTALL)
_OPENS = "<!-- compare "


def compare(arguments: Sequence[str]) -> None:
    """`CONFIG ... [--chart FILE]`, or `--page FILE`.

    Raises:
        SegfolioError: a mistake in the arguments or in the page, experiments that were not tested in one way.
    """
    parser = Parser("compare")
    parser.add_argument("configs", nargs="*", type=Path, metavar="CONFIG", help="experiments, or folders of them")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="an SVG: the main figure by parameters and time")
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="write anew what is between `<!-- compare CONFIG ... [--chart FILE] -->` and `<!-- compared -->` in it",
    )
    given = parser.parse_intermixed_args(arguments)
    if given.page:
        if given.configs or given.chart:
            raise SegfolioError("--page says itself what to compare; leave out the experiments and --chart")
        return _write(given.page, filled(given.page).encode())
    rows = compared(given.configs)
    print(markdown(rows, Path.cwd()))
    if given.chart:
        _write(given.chart, _drawn(rows, given.chart))
    return None


def filled(page: Path, draw: bool = True) -> str:
    """A page with the tables of what it compares, whose paths are seen from its folder.

    Args:
        draw: whether to write the charts beside it, of what has been run.

    Raises:
        SegfolioError: no such page, nothing to compare in it, a comparison that does not end.
    """
    if not page.is_file():
        raise SegfolioError(f"there is no page {page}")
    text = page.read_text()
    if (opened := text.count(_OPENS)) != len(_BLOCK.findall(text)) or not opened:
        raise SegfolioError(
            f"{page}: expected `<!-- compare CONFIG ... -->`, each with its `<!-- compared -->` after it"
        )

    def written(block: re.Match[str]) -> str:
        parser = Parser("compare")
        parser.add_argument("configs", nargs="+", type=Path)
        parser.add_argument("--chart", type=Path)
        asked = parser.parse_intermixed_args(shlex.split(block["what"]))
        rows = compared([page.parent / config for config in asked.configs])
        found = markdown(rows, page.parent)
        if asked.chart and any(row.value is not None for row in rows):
            if draw:
                _write(page.parent / asked.chart, _drawn(rows, asked.chart))
            found += f"\n\n![By parameters, and by minutes of one core]({asked.chart.as_posix()})"
        return f"{block[1]}\n{found}\n\n{block[3]}"

    return _BLOCK.sub(written, text)


def _drawn(rows: Sequence[Compared], file: Path) -> bytes:
    if file.suffix.lower() != ".svg":
        raise SegfolioError(f"--chart {file} is no name of a picture; give one that ends in .svg")
    return chart(rows)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    print(f"written: {path}")
