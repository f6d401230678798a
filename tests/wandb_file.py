"""What an offline run of W&B holds: its file is LevelDB's log format, with protobuf records."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

BLOCK = 32768


def records(path: Path) -> Iterator[bytes]:
    """The records of a `.wandb` file, up to where a killed process left it."""
    data, at, parts = path.read_bytes(), 7, []
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0 or at + 7 + length > len(data):
            return
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def history(folder: Path, number: int = 0) -> list[tuple[int, dict[str, str]]]:
    """Number and values of every entry that the run's segments in `folder` hold, in order.

    W&B's service may write after a run has ended: a minute is waited for so many entries.
    """
    until = time.monotonic() + 60
    while len(entries := _history(folder)) < number and time.monotonic() < until:
        time.sleep(0.2)
    return entries


def _history(folder: Path) -> list[tuple[int, dict[str, str]]]:
    from wandb.proto import wandb_internal_pb2

    entries = []
    for path in sorted(folder.glob("offline-run-*/run-*.wandb")):
        for data in records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {(i.key or "/".join(i.nested_key)): i.value_json for i in record.history.item}
                entries.append((record.history.step.num, items))
    return entries
