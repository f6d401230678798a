"""`segfolio results`: the paper's figures and ours."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from segfolio.errors import SegfolioError
from segfolio.ledger.markdown import markdown, plain
from segfolio.ledger.rows import ledger


class Parser(argparse.ArgumentParser):
    """Answers a mistake by a sentence, and takes no abbreviations."""

    def __init__(self, command: str) -> None:
        super().__init__(prog=f"segfolio {command}", allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise SegfolioError(f"{message}; see `{self.prog} --help`")


def results(arguments: Sequence[str]) -> None:
    """Print the ledger, and write it where asked to.

    Raises:
        SegfolioError: an unknown argument, an experiment or results that cannot be read.
    """
    parser = Parser("results")
    parser.add_argument("--experiments", type=Path, default=Path("experiments"), help="folder of the experiments")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md into it")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page to sort and filter, with pictures")
    given = parser.parse_args(arguments)
    rows, withheld = ledger(given.experiments)
    print(plain(rows))
    if given.write:
        (given.experiments / "RESULTS.md").write_text(markdown(rows))
    if given.html:
        from segfolio.ledger.page import page  # needs OpenCV, which takes longer than all else here

        given.html.parent.mkdir(parents=True, exist_ok=True)
        given.html.write_text(page(rows))
    for sentence in withheld:
        print(f"segfolio: {sentence}", file=sys.stderr)
