"""The clock of the house: passes in turns, the memory that they need, and how they are computed."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

Precision = Literal["32", "tf32", "bf16", "16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_WORDS = {"32": "float32", "tf32": "TF32", "bf16": "bfloat16 by autocast", "16": "float16 by autocast"}

Pass = Callable[[], object]


@dataclass(frozen=True)
class Mode:
    """How a network is computed.

    Attributes:
        precision: `32` is float32 without TF32, `tf32` with it in products and convolutions, the others are autocast.
        compile: whether by `torch.compile`, of which the first calls are warm-up.
        channels_last: whether images and weights lie so in memory.
    """

    precision: Precision = "32"
    compile: bool = False
    channels_last: bool = False

    @property
    def words(self) -> str:
        return ", ".join([_WORDS[self.precision], *(n for n in ("compile", "channels_last") if getattr(self, n))])

    @contextmanager
    def computing(self, device: torch.device) -> Iterator[None]:
        """What is computed inside is so, on this device; what was said before holds again afterwards."""
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        low = {"bf16": torch.bfloat16, "16": torch.float16}.get(self.precision)
        try:
            with nullcontext() if low is None else torch.autocast(device.type, low):
                yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]

    def prepared(self, network: nn.Module) -> nn.Module:
        """The network in this layout, compiled in place where it is to be."""
        if self.channels_last:
            network = network.to(memory_format=torch.channels_last)
        if self.compile:
            network.compile()
        return network


def in_turns(
    passes: Mapping[str, Pass], rounds: int, warm_up: int, device: torch.device, modes: Mapping[str, Mode] | None = None
) -> dict[str, list[float]]:
    """Seconds of each pass in each round, in which all take turns: a busy machine is busy for all of them.

    Args:
        warm_up: rounds before the first that counts.
        modes: of each pass; float32 where none is given.
    """
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(warm_up + rounds):
        for name, run in passes.items():
            with (modes or {}).get(name, Mode()).computing(device):
                taken = elapsed(run, device)
            if turn >= warm_up:
                seconds[name].append(taken)
    return seconds


def elapsed(run: Pass, device: torch.device) -> float:
    """Seconds of one pass, to the end of what it has asked of the device; of one CPU thread those that it had."""
    clock = time.process_time if of_processor(device) else time.perf_counter
    _wait(device)
    start = clock()
    run()
    _wait(device)
    return clock() - start


def of_processor(device: torch.device) -> bool:
    """Whether time is the processor's, which it does not spend on other processes: where a pass has but one thread."""
    return device.type == "cpu" and torch.get_num_threads() == 1


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_bytes(run: Pass, device: torch.device = torch.device("cpu")) -> int:  # noqa: B008  it is immutable
    """The most memory that tensors made by a pass hold at one time, beyond what there was before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler tells of every start
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    held = peak = 0
    for event in sorted(record.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def weight_bytes(network: nn.Module) -> int:
    """Of parameters and buffers, each once."""
    tensors = {id(t): t for t in (*network.parameters(), *network.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())
