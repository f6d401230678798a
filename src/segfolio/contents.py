"""`segfolio architectures` and `segfolio datasets`: the folio's tables of contents, remembered until code changes."""

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from segfolio.code_state import PACKAGE, code_state, imported, installed
from segfolio.data.checks.remembered import remembered, stamps
from segfolio.errors import SegfolioError
from segfolio.ledger.command import Parser
from segfolio.table import table


def architectures(arguments: Sequence[str]) -> None:
    """`[WORD ...]`: print every variant of every architecture, or those whose row has all words.

    `--erf NAME ...` draws the effective receptive fields of variants, see `viz.receptive_field`, and
    `--attention NAME ...` what patches attend to, see `viz.attention`.

    Raises:
        SegfolioError: words that no row has, both pictures at once, and what `draw` of these names.
    """
    parser = _parser("architectures")
    drawn = parser.add_argument_group("pictures")
    drawn.add_argument("--erf", metavar="NAME", nargs="+", help="effective receptive fields of these variants")
    drawn.add_argument(
        "--attention", metavar="NAME", nargs="+", help="attention maps of these variants, on a plain ViT"
    )
    drawn.add_argument("--images", type=Path, metavar="PATH", help="an image or a folder of them; noise by default")
    drawn.add_argument("--size", type=int, default=512, help="of the images, in pixels (%(default)s)")
    drawn.add_argument(
        "--weights",
        nargs="+",
        default=[],
        help="one for all networks or one for each: as a network's argument `weights`, a run's checkpoint, or "
        "`random`, which is the default",
    )
    drawn.add_argument("--output", type=Path, help="the picture (erf.png, attention.png)")
    given = parser.parse_intermixed_args(arguments)
    if given.erf and given.attention:
        raise SegfolioError("--erf and --attention are two pictures; give one of them")
    if given.erf:
        from segfolio.viz.receptive_field import SHARES, draw  # needs torch and all architectures

        output = given.output or Path("erf.png")
        rows = draw(given.erf, output, given.images, given.size, given.weights)
        header = ("name", "part", "weights", "normalised as", *(f"side of {share:.0%}" for share in SHARES))
        print(table(header, rows, right=(4, 5)))
        print(f"\nwritten: {output}")
        return
    if given.attention:
        from segfolio.viz import attention

        output = given.output or Path("attention.png")
        rows = attention.draw(given.attention, output, given.images, given.size, given.weights)
        print(table(("name", "weights", "normalised as", "blocks"), rows))
        print(f"\nwritten: {output}")
        return
    header = ("name", "paper", "parameters", "receptive field", "stride", "family.file.class")
    rows = _chosen("architectures", given.words, _architecture_rows)
    print(table(header, rows, right=(2, 3, 4)))
    print("\nParameters at 21 classes. class_path: segfolio.architectures.<family.file.class>")


def datasets(arguments: Sequence[str]) -> None:
    """`[WORD ...]`: print every dataset, or those of which all words are said, and where its files come from.

    Raises:
        SegfolioError: words that no row has.
    """
    header = ("name", "classes", "images", "tasks", "disk", "files")
    rows = _chosen("datasets", _parser("datasets").parse_args(arguments).words, _dataset_rows)
    print(table(header, [row[: len(header)] for row in rows], right=(1, 4)))
    for row in rows:
        print(f"\n{row[-1]}")


def _parser(command: str) -> Parser:
    parser = Parser(command)
    parser.add_argument("words", metavar="WORD", nargs="*", help="show what all these words describe, in any case")
    return parser


def _chosen(command: str, words: Sequence[str], rows: Callable[[], list[list[str]]]) -> list[list[str]]:
    """The rows with all words."""
    chosen = [row for row in rows() if all(word.lower() in " ".join(row).lower() for word in words)]
    if not chosen:
        raise SegfolioError(f"nothing is described by {' '.join(words)!r}; `segfolio {command}` lists all there is")
    return chosen


def _architecture_rows() -> list[list[str]]:
    """Each file's are remembered until it changes, or what it imports, or how they are counted."""
    around, counting = installed(), {PACKAGE / f"{file}.py" for file in ("listing", "layers/hollow", "layers/counting")}
    rows = []
    for file in sorted((PACKAGE / "architectures").rglob("*.py")):
        module = ".".join((PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts))
        state = [*around, stamps(sorted(imported(file) | counting))]
        rows += _rows("segfolio.listing:architecture_rows", module, state=state, worth=0.0)  # a file takes little
    return rows


def _dataset_rows() -> list[list[str]]:
    return _rows("segfolio.data.listing:dataset_rows", state=code_state())


def _rows(maker: str, *arguments: str, state: Sequence[str], worth: float | None = None) -> list[list[str]]:
    """What `maker`, a `module:function`, yields, remembered for this state of the code."""

    def made() -> bytes:
        module, _, name = maker.partition(":")
        return json.dumps(list(getattr(importlib.import_module(module), name)(*arguments))).encode()  # takes seconds

    found: list[list[str]] = json.loads(remembered([maker, arguments, state], made, worth))
    return found
