"""`segfolio results`: the paper's figures and ours."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from segfolio.errors import SegfolioError
from segfolio.files import check_page, write_atomically
from segfolio.ledger.markdown import markdown
from segfolio.ledger.rows import STATES, Row, ledger
from segfolio.ledger.text import plain


class Parser(argparse.ArgumentParser):
    """Answers a mistake by a sentence, and takes no abbreviations."""

    def __init__(self, command: str) -> None:
        super().__init__(prog=f"segfolio {command}", allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise SegfolioError(f"{message}; see `{self.prog} --help`")


def results(arguments: Sequence[str]) -> None:
    """Print the ledger, or write it where asked to and say where.

    Raises:
        SegfolioError: an unknown argument or state, an experiment or results that cannot be read, a part of the
            ledger for RESULTS.md.
    """
    parser = Parser("results")
    parser.add_argument("words", nargs="*", metavar="WORD", help="rows that have each in name, paper or dataset")
    parser.add_argument("--state", action="append", default=[], help=f"one or more of {', '.join(STATES)}")
    parser.add_argument("--experiments", type=Path, default=Path("experiments"), help="folder of the experiments")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md into it")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page to sort and filter, with pictures")
    given = parser.parse_intermixed_args(arguments)
    states = _states(given.state)
    check_page(given.html)
    if given.write and (given.words or states):
        raise SegfolioError("--write writes the whole ledger; leave out words and --state")
    rows, withheld = ledger(given.experiments)
    shown = _found(rows, given.words, states)
    if given.write:
        _write(given.experiments / "RESULTS.md", markdown(rows))
    if given.html:
        from segfolio.ledger.page import page  # needs OpenCV, which takes longer than all else here

        _write(given.html, page(shown))
    if not (given.write or given.html):
        print(plain(shown, shutil.get_terminal_size((120, 24)).columns) if shown else _nothing(given.words, states))
    for sentence in withheld:
        print(f"segfolio: {sentence}", file=sys.stderr)


def _states(given: Sequence[str]) -> list[str]:
    states = [state.strip() for one in given for state in one.split(",")]
    if unknown := [state for state in states if state not in STATES]:
        raise SegfolioError(f"--state is {unknown[0]!r}, expected one of {', '.join(STATES)}")
    return states


def _found(rows: Sequence[Row], words: Sequence[str], states: Sequence[str]) -> list[Row]:
    """The rows that have all the words, and of them the figures in one of the states."""
    found = []
    for row in rows:
        text = f"{row.name} {row.paper.title} {row.paper.arxiv} {row.paper.row} {row.dataset}".lower()
        if all(word.lower() in text for word in words) and (not states or set(states) & set(row.states)):
            cells = tuple(c for c in row.cells if not states or c.state in states)
            found.append(replace(row, cells=cells, own=row.own if not states or row.own in states else ""))
    return found


def _nothing(words: Sequence[str], states: Sequence[str]) -> str:
    asked = [*(f"{word!r}" for word in words), *([f"a figure that is {' or '.join(states)}"] if states else [])]
    return f"no row of the ledger has {' and '.join(asked)}; `segfolio results` shows all" if asked else "no rows here"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    print(f"written: {path}")
