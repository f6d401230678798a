"""What is left unsaid: what libraries say that a user can do nothing about, and what nobody reads any more."""

import logging
import os
import select
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

NOISE = (
    ".*exists and is not empty.*",  # the run's folder, which holds its record by then
    ".*treespec, LeafSpec.*",  # Lightning calls what torch has renamed
    ".*LightningCLI's args parameter.*",  # the arguments are those of the command line, completed
    ".*does not have many workers.*",  # two cores have no more
    ".*The number of training batches .* is smaller than the logging interval.*",
    ".*when logging on epoch level in distributed setting.*",  # the metrics have added up by then
    ".*in eval mode at the start of training.*",  # what is frozen
    ".*your dataloader is not resumable.*",  # the data module goes on at the very sample
    ".*add the following callbacks.*",  # a checkpoint names callbacks that a prediction does not need
)
CHATTER = ("Tip: For seamless", "TPU available")

CLOSED = 141
"""Exit status of a command whose output nobody reads any more: that of a shell for SIGPIPE."""


def quiet() -> None:
    """Leave out the messages in `NOISE` and `CHATTER`, and the source lines that Python shows with a warning."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(said in record.getMessage() for said in CHATTER)
    )
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


@contextmanager
def until_closed() -> Iterator[None]:
    """Print for as long as somebody reads: `segfolio results | head -1` ends without a message.

    Another pipe that breaks, as that of a loader's worker, is an error.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not _unread(sys.stdout.fileno()):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end


def _unread(file: int) -> bool:
    """Whether the other end of a pipe is closed."""
    poll = select.poll()
    poll.register(file, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
