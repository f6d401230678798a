"""`segfolio architectures` and `segfolio datasets`: the folio's tables of contents, remembered until code changes."""

import importlib
import json
from collections.abc import Sequence

from segfolio.code_state import code_state
from segfolio.data.checks.remembered import remembered
from segfolio.errors import SegfolioError
from segfolio.ledger.command import Parser
from segfolio.table import table


def architectures(arguments: Sequence[str]) -> None:
    """`[WORD ...]`: print every variant of every architecture, or those whose row has all words.

    Raises:
        SegfolioError: words that no row has.
    """
    header = ("name", "paper", "parameters", "receptive field", "stride", "family.file.class")
    rows = _chosen("architectures", arguments, "architecture_rows")
    print(table(header, rows, right=(2, 3, 4)))
    print("\nParameters at 21 classes. class_path: segfolio.architectures.<family.file.class>")


def datasets(arguments: Sequence[str]) -> None:
    """`[WORD ...]`: print every dataset, or those of which all words are said, and where its files come from.

    Raises:
        SegfolioError: words that no row has.
    """
    header = ("name", "classes", "images", "tasks", "disk", "files")
    rows = _chosen("datasets", arguments, "dataset_rows")
    print(table(header, [row[: len(header)] for row in rows], right=(1, 4)))
    for row in rows:
        print(f"\n{row[-1]}")


def _chosen(command: str, arguments: Sequence[str], maker: str) -> list[list[str]]:
    """Of the rows that `maker` of `segfolio.listing` yields, those with all words of the arguments."""
    parser = Parser(command)
    parser.add_argument("words", metavar="WORD", nargs="*", help="show what all these words describe, in any case")
    words = parser.parse_args(arguments).words

    def made() -> bytes:
        listing = importlib.import_module("segfolio.listing")  # which takes seconds
        return json.dumps(list(getattr(listing, maker)())).encode()

    rows = json.loads(remembered([maker, code_state()], made))
    chosen = [row for row in rows if all(word.lower() in " ".join(row).lower() for word in words)]
    if not chosen:
        raise SegfolioError(f"nothing is described by {' '.join(words)!r}; `segfolio {command}` lists all there is")
    return chosen
