"""The `segfolio` command: a table of names, of which only the one that is asked for is imported."""

import importlib
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import NamedTuple

from segfolio import __version__
from segfolio.errors import SegfolioError, did_you_mean
from segfolio.quiet import CLOSED, until_closed


class Command(NamedTuple):
    """Where a command is, and its line in the help.

    Attributes:
        function: `module:name` of what is called with the arguments; it returns the exit status, None for 0.
        takes: the arguments.
        does: in few words.
    """

    function: str
    takes: str
    does: str


COMMANDS = {
    "fit": Command("segfolio.experiment:fit", "-c CONFIG [--KEY VALUE ...]", "train"),
    "validate": Command("segfolio.experiment:validate", "--ckpt_path FILE", "figures of the validation images"),
    "test": Command("segfolio.experiment:test", "--ckpt_path FILE", "figures of the test, beside the paper's"),
    "predict": Command("segfolio.experiment:predict", "--ckpt_path FILE [--data.images DIR]", "masks of your images"),
    "prompt": Command("segfolio.prompting.command:prompt", "--ckpt_path FILE --image F", "masks by points and boxes"),
    "track": Command("segfolio.track.command:track", "--ckpt_path FILE --video V --prompts F", "objects of a video"),
    "replicate": Command("segfolio.replicate:replicate", "CONFIG [--seeds 0 1 2] [--KEY VALUE ...]", "fit and test"),
    "results": Command("segfolio.ledger.command:results", "[WORD ...] [--state STATE]", "the papers' figures and ours"),
    "speed": Command("segfolio.speed.command:speed", "CONFIG CONFIG ... [--device cuda]", "times of a paper's table"),
    "compare": Command("segfolio.comparison.command:compare", "CONFIG ... [--chart FILE]", "experiments side by side"),
    "inspect": Command("segfolio.inspection.command:inspect", "CONFIG [--html FILE]", "what a dataset holds; faults"),
    "architectures": Command("segfolio.contents:architectures", "[WORD ...]", "papers, parameters, class paths"),
    "datasets": Command("segfolio.contents:datasets", "[WORD ...]", "classes, images, licences, sources"),
    "download": Command("segfolio.download.command:download", "NAME --root DIR", "a dataset, from its publisher"),
}
"""Every command, in the order of the help. One more is one more entry."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    It is 0, 1 where a seed failed or data are unfit, 2 after a user's mistake, 141 where nobody reads on.
    """
    with until_closed():
        return _answered(arguments)
    return CLOSED


def _answered(arguments: Sequence[str] | None) -> int:
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        if command in ("-h", "--help"):
            print(usage())
        elif command == "--version":
            print(__version__)
        elif rest in (["-h"], ["--help"]):
            print(help_of(command), end="")
        else:
            return function_of(command)(rest) or 0
    except Exception as error:
        mistake = mistake_within(error)
        if mistake is None:
            raise
        print(f"segfolio: {mistake}", file=sys.stderr)
        return 2
    return 0


def usage() -> str:
    """A line for each command, and what they have in common."""
    rows = [(f"  segfolio {name} {command.takes}", command.does) for name, command in COMMANDS.items()]
    width = max(len(typed) for typed, _ in rows)
    lines = "\n".join(f"{typed:{width}}  {does}" for typed, does in rows)
    return f"""segfolio {__version__}: a folio of segmentation papers that run

{lines}

FILE is RUN/checkpoints/last.ckpt or best.ckpt; `fit -c CONFIG --ckpt_path last` goes on with the latest run.
Every value of a config can be given as well: --model.init_args.optimizer.init_args.lr 0.01.
`segfolio fit --help` lists them, `segfolio fit -c CONFIG --print_config` shows the whole."""


def function_of(command: str) -> Callable[[Sequence[str]], int | None]:
    """Import what a command runs.

    Raises:
        SegfolioError: a name that is no command's.
    """
    if command not in COMMANDS:
        raise SegfolioError(
            f"there is no command {command!r}{did_you_mean(command, COMMANDS) or '; `segfolio --help` lists them'}"
        )
    module, _, name = COMMANDS[command].function.partition(":")
    function: Callable[[Sequence[str]], int | None] = getattr(importlib.import_module(module), name)
    return function


def help_of(command: str) -> str:
    """What a command prints of itself, remembered until code changes: for some, torch and Lightning are imported.

    Raises:
        SegfolioError: a name that is no command's.
    """
    from segfolio.code_state import code_state
    from segfolio.data.checks.remembered import remembered

    def printed() -> bytes:
        with redirect_stdout(StringIO()) as text, suppress(SystemExit):
            function_of(command)(["--help"])
        return text.getvalue().encode()

    width = shutil.get_terminal_size().columns  # to which argparse fits its lines
    return remembered(["help", command, width, code_state()], printed).decode()


def mistake_within(error: BaseException | None) -> str | None:
    """The sentence of the `SegfolioError` that an exception is, or came from; None if there is none.

    A config's parser wraps what a constructor raises; a loader's worker sends it with its stack trace. The
    operation at which `trainer.deterministic` makes torch stop is told as a mistake, too; so is what `lacking`
    and `misconfigured` know.
    """
    from segfolio.mistakes import lacking, misconfigured

    if match := re.match(r"(\S+) does not have a deterministic implementation", str(error)):
        return (
            f"torch has no deterministic form of {match[1]} on this device, which trainer.deterministic asks for; "
            "go on without it by --trainer.deterministic=warn, or compute on --trainer.accelerator=cpu"
        )
    own = error
    while own is not None and not isinstance(own, SegfolioError):
        own = own.__cause__
    if own is None:
        return lacking(error) or misconfigured(error)
    return str(own).rpartition("segfolio.errors.SegfolioError: ")[2].strip()


if __name__ == "__main__":
    raise SystemExit(main())
