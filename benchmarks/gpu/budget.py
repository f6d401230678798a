"""The time that a call may take, and processes that end with it."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


class Budget:
    """Seconds from now; `part` of what is left is the budget of a step."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    def part(self, share: float) -> "Budget":
        return Budget(share * self.left())


def run_within(budget: Budget, command: Sequence[str], log: Path, grace: float = 20.0) -> int | None:
    """A process, its words in a file; None where the time ended it.

    It is asked to end (SIGTERM) `grace` seconds before the time is up, for it to write a checkpoint; what it has
    started is its to tell, and is killed with it then.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return process.wait(max(0.0, budget.left() - grace))
        except subprocess.TimeoutExpired:
            process.terminate()
        deadline = time.monotonic() + max(1.0, min(grace, budget.left()))
        while _lives(process) and time.monotonic() < deadline:
            time.sleep(0.1)
        if _lives(process):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return None


def _lives(process: "subprocess.Popen[bytes]") -> bool:
    """Whether one of the group does: the first may end before those that it has started."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
