"""The `segfolio` command."""

import re
import sys
from collections.abc import Sequence

from segfolio import __version__
from segfolio.errors import SegfolioError

USAGE = f"""segfolio {__version__}: a folio of segmentation papers that run

  segfolio fit -c CONFIG [--data.root DIR] [--trainer.max_steps N] ...
  segfolio validate | test --ckpt_path RUN/checkpoints/last.ckpt
  segfolio predict --ckpt_path RUN/checkpoints/last.ckpt [--data.images DIR] [--output DIR]

  segfolio replicate CONFIG [--seeds 0 1 2] [--data.root DIR] ...       fit and test per seed, goes on where it stopped
  segfolio results [WORD ...] [--state STATE] [--write] [--html FILE]   paper and ours

  segfolio inspect CONFIG [--data.root DIR] [--json] [--html FILE]      read all of a dataset: counts, weights, faults

  segfolio architectures       name, family, paper, parameters, receptive field, stride
  segfolio datasets            classes, splits, licence, files and how to get them
  segfolio download NAME --root DIR      what publishers serve to everyone; goes on where it stopped

Every value of a config can be given on the command line (--model.init_args.optimizer.init_args.lr 0.01).
`segfolio fit --help` lists them, `segfolio fit -c CONFIG --print_config` shows the whole.
"""
LOOPS = ("fit", "validate", "test", "predict")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 where a seed failed or data are unfit, 2 after a user's mistake."""
    command, *rest = arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        if command in LOOPS:
            from segfolio.experiment import run  # here and below: a listing need not wait for lightning

            run(arguments)
        elif command == "replicate":
            from segfolio.replicate import replicate

            return replicate(rest)
        elif command == "results":
            from segfolio.ledger.command import results

            results(rest)
        elif command == "inspect":
            from segfolio.inspection.command import inspect

            return inspect(rest)
        elif command == "download":
            from segfolio.download.command import download

            return download(rest)
        elif command in ("architectures", "datasets"):
            from segfolio import listing

            print(getattr(listing, command)(rest))
        elif command in ("-h", "--help", "--version"):
            print(USAGE if command != "--version" else __version__)
        else:
            raise SegfolioError(f"there is no command {command!r}; `segfolio --help` lists them")
    except Exception as error:
        mistake = mistake_within(error)
        if mistake is None:
            raise
        print(f"segfolio: {mistake}", file=sys.stderr)
        return 2
    return 0


def mistake_within(error: BaseException | None) -> str | None:
    """The sentence of the `SegfolioError` that an exception is, or came from; None if there is none.

    A config's parser wraps what a constructor raises; a loader's worker sends it with its stack trace. The
    operation at which `trainer.deterministic` makes torch stop is told as a mistake, too; so is what `lacking` knows.
    """
    from segfolio.mistakes import lacking

    if match := re.match(r"(\S+) does not have a deterministic implementation", str(error)):
        return (
            f"torch has no deterministic form of {match[1]} on this device, which trainer.deterministic asks for; "
            "go on without it by --trainer.deterministic=warn, or compute on --trainer.accelerator=cpu"
        )
    own = error
    while own is not None and not isinstance(own, SegfolioError):
        own = own.__cause__
    return lacking(error) if own is None else str(own).rpartition("segfolio.errors.SegfolioError: ")[2].strip()


if __name__ == "__main__":
    raise SystemExit(main())
