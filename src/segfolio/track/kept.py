"""What is kept on disk while a video is tracked, so that a run that was killed goes on as if it had not been."""

import fcntl
import hashlib
import io
import json
import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from segfolio.data.videos import Video
from segfolio.errors import SegfolioError
from segfolio.files import OutputFolder, write_atomically
from segfolio.inference.track import Tracker
from segfolio.track.prompts import Said

SECONDS = 20.0
"""Between two times that a tracker is kept; what was tracked since is tracked again."""

_FORM = 1  # of the files, and of how a video is gone through
_WORDS = {"exact": "decoder"}  # of what an origin holds
_ORIGIN, _STATE = "tracking.json", "state.pt"


class State(NamedTuple):
    """How far a video is tracked.

    Attributes:
        passes: that are done.
        frames: of the next one that are done.
        unreadable: what was said of frames that cannot be read.
        tracker: its attributes, but for the network; none before a pass.
    """

    passes: int = 0
    frames: int = 0
    unreadable: tuple[str, ...] = ()
    tracker: dict[str, Any] | None = None


class Kept:
    """The folder that a video is tracked to, as a place to go on from.

    A tracker is kept whole, with what it remembers in the type in which it does, in one file that is replaced.

    Args:
        origin: what all depends on, see `origin_of`.

    Raises:
        SegfolioError: there is something else in the folder.
    """

    def __init__(self, folder: OutputFolder, origin: dict[str, Any]) -> None:
        self._file, there = folder.path(_STATE), folder.path(_ORIGIN)
        if there.is_file():
            try:
                then = json.loads(there.read_bytes())
            except ValueError as error:
                raise SegfolioError(f"{there} is damaged ({error}); remove {folder.root} to track anew") from error
            if other := [_WORDS.get(k, k) for k in {**then, **origin} if then.get(k) != origin.get(k)]:
                raise SegfolioError(
                    f"{folder.root} holds what was tracked before with another {' and another '.join(other)}; give "
                    "another --output, or remove it"
                )
        else:
            self._file.unlink(missing_ok=True)
            write_atomically(there, (json.dumps(origin, indent=1) + "\n").encode())
        self._last = time.monotonic()

    def load(self, device: torch.device) -> State:
        """What was kept last; a state of nothing, if there is none.

        Raises:
            SegfolioError: a file that is damaged.
        """
        if not self._file.is_file():
            return State()
        modules = [module for name, module in sys.modules.items() if name.startswith("segfolio.inference.")]
        own: list[Any] = [  # of which a tracker may consist
            each
            for module in modules
            for each in vars(module).values()
            if isinstance(each, type) and each.__module__ == module.__name__
        ]
        try:
            with torch.serialization.safe_globals(own):
                return State(**torch.load(self._file, device, weights_only=True))
        except (RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise SegfolioError(f"{self._file} is damaged ({error}); remove it to track from the start") from error

    def now_and_then(self, state: State, tracker: Tracker) -> None:
        """Keep a state, unless one was kept a moment ago."""
        if time.monotonic() - self._last >= SECONDS:
            self.put(state, tracker)

    def put(self, state: State, tracker: Tracker | None = None) -> None:
        """Keep a state, in place of the one before."""
        kept = None if tracker is None else {k: v for k, v in vars(tracker).items() if k != "network"}
        torch.save({**state._asdict(), "tracker": kept}, stream := io.BytesIO())
        write_atomically(self._file, stream.getvalue())
        self._last = time.monotonic()


def restore(tracker: Tracker, state: State) -> Tracker:
    """A new tracker as the kept one was."""
    vars(tracker).update(state.tracker or {})
    return tracker


@contextmanager
def alone(folder: OutputFolder) -> Iterator[None]:
    """Of processes that track to one folder, the first; also of those on other machines, where the disk allows it.

    Raises:
        SegfolioError: another one is at work.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    with folder.path(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SegfolioError(
                f"another `segfolio track` writes to {folder.root}; wait for it, or give another --output"
            ) from error
        except OSError:
            pass  # a disk without locks
        yield


def origin_of(video: Video, said: Sequence[Said], family: nn.Module, **settings: Any) -> dict[str, Any]:
    """What the result depends on. A video is known by the names and sizes of its frames or its file, a network by its
    weights, by what else its parts hold (sizes, thresholds), and by what images are to it."""
    network: Any = family.network
    weights = hashlib.sha256(repr(_plain(network)).encode())
    values = {**network.state_dict(), "mean": family.mean, "std": family.std}
    for name, value in sorted(values.items()):
        value = value.detach().cpu().contiguous()
        weights.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        weights.update(value.reshape(-1).view(torch.uint8).numpy().data)
    files = [[path.name, path.stat().st_size] for path in video.files()]
    kinds = f"{type(network).__module__}.{type(network).__qualname__}"
    return {
        "form of these files": _FORM,
        "video": _sha256([files, len(video)]),
        "file of prompts": _sha256([repr(one) for one in said]),
        "network": f"{kinds} {weights.hexdigest()}",
        **settings,
    }


def _plain(network: nn.Module) -> list[tuple[str, str, Any]]:
    """The numbers and words that its parts hold."""
    kinds = bool | int | float | str | tuple
    return [
        (part, name, value)
        for part, module in network.named_modules()
        for name, value in sorted(vars(module).items())
        if isinstance(value, kinds) and name != "training"
    ]


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
