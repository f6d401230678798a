"""`segfolio prompt`: masks of images by points and boxes, or of all that they show."""

import json
import re
from argparse import Action, ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from segfolio.data.formats.images import read_image
from segfolio.data.image_ids import id_of
from segfolio.errors import SegfolioError
from segfolio.files import OutputFolder, write_atomically
from segfolio.inference.interactive import Click, Corners, Interactive, check_click, inside
from segfolio.ledger.command import Parser
from segfolio.prompting.files import write_everything, write_objects
from segfolio.prompting.network import promptable
from segfolio.quiet import quiet
from segfolio.table import table


@dataclass
class Wish:
    """One object, as it is asked for on the command line."""

    clicks: list[Click] = field(default_factory=list)
    box: Corners | None = None


def prompt(arguments: Sequence[str]) -> None:
    """`--ckpt_path FILE --image F [F ...] [--point X,Y[,0]] [--box X1,Y1,X2,Y2] [--everything] [--output DIR]`.

    Raises:
        SegfolioError: a mistake in the arguments, a network that is not to be had or not promptable, an image that
            cannot be read, a click or a box outside of it.
    """
    quiet()
    given, changes = _parsed(arguments)
    wishes = [wish for wish in given.wishes if wish.clicks or wish.box]
    if bool(wishes) == given.everything:
        raise SegfolioError(
            "`segfolio prompt` needs --point X,Y or --box X1,Y1,X2,Y2, or else --everything"
            if not wishes
            else "--everything is asked for without --point and --box; leave out one or the other"
        )
    images = _by_id(given.image)
    torch.set_float32_matmul_precision("high")
    family, beside = promptable("prompt", given.config, given.ckpt_path, changes)
    for file in images.values():
        _check(file, read_image(file, family.image_space).shape[:2], wishes)
    family.to("cuda" if torch.cuda.is_available() else "cpu")
    session = Interactive(family, given.window or getattr(family.tested[0], "window", None))
    folder = OutputFolder(given.output or beside / "prompted", images.values)
    results: list[Any] = []
    rows: list[tuple[str, ...]] = []
    for name, file in images.items():
        session.set_image(file)
        if given.everything:
            found = session.everything(family.predict_with)
            results += write_everything(folder, name, session.image, found)
            rows.append((name, f"{len(found.rles)}", *_range(found.iou.tolist())))
            if not found.rles:
                rank_zero_warn(f"{file}: no mask is above the thresholds; give a lower {family.predict_with.lower}")
            continue
        answers = []
        for wish in wishes:
            session.next_object()
            answers.append(session.ask(wish.clicks, wish.box))
        results += write_objects(folder, name, session.image, answers)
        for number, answer in enumerate(answers, 1):
            if not answer.mask.any():
                rank_zero_warn(f"{file}: nothing is found of object {number}; point at another place, or give a box")
            others = ", ".join(f"{s:.2f}" for i, s in enumerate(answer.scores) if i != answer.chosen)
            rows.append((name, f"{number}", f"{answer.mask.sum()}", f"{answer.score:.2f}", others))
    write_atomically(folder.path("instances.json"), json.dumps(results).encode())
    names = (
        ("image", "masks", "scores from", "to") if given.everything else ("image", "object", "pixels", "score", "or")
    )
    print(table(names, rows, right=range(1, len(names))))
    print(f"masks, scores and overlays: {folder.root}")


def _parsed(arguments: Sequence[str]) -> tuple[Namespace, list[str]]:
    parser = Parser("prompt")
    parser.add_argument("--ckpt_path", metavar="FILE", help="a checkpoint of a run, or the run's folder")
    parser.add_argument("-c", "--config", metavar="CONFIG", help="an experiment, as of SAM with released weights")
    parser.add_argument("--image", type=Path, nargs="+", metavar="F", required=True, help="each is asked the same")
    parser.add_argument(
        "--point",
        type=_point,
        action=_Wishes,
        metavar="X,Y[,0]",
        help="a pixel on the object, column and row from 0; with ,0 one beside it",
    )
    parser.add_argument(
        "--box", type=_box, action=_Wishes, metavar="X1,Y1,X2,Y2", help="left, top, right, bottom around the object"
    )
    parser.add_argument("--object", nargs=0, action=_Wishes, help="what follows is of the next object")
    parser.add_argument("--everything", action="store_true", help="all that the images show, without being asked")
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="show square windows of N pixels to a network that learnt on crops; by default as the config's test does",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to; prompted/ in the run's folder, or here")
    parser.set_defaults(wishes=[Wish()])
    parser.epilog = (
        "Points and a box are of one object; a second box, or --object, begins the next. Everything mode goes by the "
        "config's predict_with; its keys can be given as well: --predict_with.points_per_side 16, and any other of the "
        "model: --model.init_args.architecture.init_args.weights FILE"
    )
    given, changes = parser.parse_known_args(_signed(arguments))
    known = ("--predict_with.", "--model.")
    if wrong := [change for change in changes if change.startswith("-") and not change.startswith(known)]:
        parser.error(f"unrecognized arguments: {wrong[0]}")
    return given, changes


def _signed(arguments: Sequence[str]) -> list[str]:
    """`--point -5,3` as `--point=-5,3`: argparse would take it for an option."""
    signed = re.sub(r"^(--point|--box)\n(?=-[\d.])", r"\1=", "\n".join(arguments), flags=re.MULTILINE)
    return signed.split("\n")


class _Wishes(Action):
    """Gathers points, boxes and what divides them in the order in which they are given."""

    def __call__(self, parser: Any, namespace: Namespace, values: Any, option_string: str | None = None) -> None:
        wishes: list[Wish] = namespace.wishes
        if option_string == "--object" or (option_string == "--box" and wishes[-1].box):
            wishes.append(Wish())
        if option_string == "--point":
            wishes[-1].clicks.append(values)
        elif option_string == "--box":
            wishes[-1].box = values


def _point(text: str) -> Click:
    numbers = _numbers(text)
    if len(numbers) not in (2, 3):
        raise ArgumentTypeError(f"{text!r} is no point; expected X,Y or X,Y,0")
    label = numbers[2] if len(numbers) == 3 else 1
    if label not in (0, 1):
        raise ArgumentTypeError(f"the label of {text!r} is {label:g}; expected 1 (on the object) or 0 (beside it)")
    return numbers[0], numbers[1], int(label)


def _box(text: str) -> Corners:
    numbers = _numbers(text)
    if len(numbers) != 4 or not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        raise ArgumentTypeError(f"{text!r} is no box; expected X1,Y1,X2,Y2 with X1 < X2 and Y1 < Y2")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return []


def _by_id(files: Sequence[Path]) -> dict[str, Path]:
    """The images by the names that results have.

    Raises:
        SegfolioError: two of one name.
    """
    found: dict[str, Path] = {}
    for file in files:
        name = id_of(file.name)
        if name in found and file.resolve() != found[name].resolve():
            raise SegfolioError(f"{found[name]} and {file} would both be written as {name}; ask for them one by one")
        found[name] = file
    return found


def _check(file: Path, size: Sequence[int], wishes: Sequence[Wish]) -> None:
    """Before anything is asked."""
    try:
        for wish in wishes:
            for click in wish.clicks:
                check_click(click, (size[0], size[1]))
            if wish.box:
                inside(wish.box, (size[0], size[1]))
    except SegfolioError as error:
        raise SegfolioError(f"{file}: {error}") from None


def _range(scores: Sequence[float]) -> tuple[str, str]:
    return (f"{min(scores):.2f}", f"{max(scores):.2f}") if scores else ("-", "-")
