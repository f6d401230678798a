"""The clock: turns, memory, and how it is computed."""

import time

import pytest
import torch
from torch import nn

from segfolio.speed.measure import Mode, elapsed, in_turns, peak_bytes, weight_bytes

CPU = torch.device("cpu")


def test_all_take_turns_and_warm_up_does_not_count():
    calls: list[str] = []
    seconds = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, 2, CPU)
    assert calls == ["a", "b"] * 5
    assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 3}
    assert all(second >= 0 for each in seconds.values() for second in each)


@pytest.mark.parametrize(("threads", "least", "most"), [(1, 0.0, 0.1), (2, 0.2, 9.0)])
def test_of_one_thread_time_is_what_the_processor_spent(threads: int, least: float, most: float):
    """A pass that sleeps, as if another process had the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert least <= elapsed(lambda: time.sleep(0.2), CPU) < most
    finally:
        torch.set_num_threads(before)


def test_peak_is_what_is_held_at_one_time():
    """Of 4 MB each: two are held at a time, and three are made; what a scalar takes does not matter."""

    def run() -> None:
        first = torch.ones(1_000_000)
        del first
        torch.ones(1_000_000).add(1)

    assert peak_bytes(run) == pytest.approx(8e6, rel=1e-4)


def test_weights_count_once():
    shared = nn.Linear(10, 10, bias=False)
    assert weight_bytes(nn.Sequential(shared, nn.BatchNorm1d(10), shared)) == 4 * (100 + 4 * 10) + 8


@pytest.mark.parametrize(
    ("mode", "words", "dtype"),
    [
        (Mode(), "float32", torch.float32),
        (Mode("tf32"), "TF32", torch.float32),
        (
            Mode("bf16", compile=True, channels_last=True),
            "bfloat16 by autocast, compile, channels_last",
            torch.bfloat16,
        ),
    ],
)
def test_a_mode_holds_inside_alone(mode: Mode, words: str, dtype: torch.dtype):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with mode.computing(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
        assert torch.backends.cudnn.allow_tf32 == (mode.precision == "tf32")
        assert torch.get_float32_matmul_precision() == ("high" if mode.precision == "tf32" else "highest")
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    assert mode.words == words


def test_each_pass_is_computed_in_its_mode():
    found: dict[str, torch.dtype] = {}

    def product(name: str) -> None:
        found[name] = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    in_turns({name: lambda name=name: product(name) for name in "ab"}, 1, 1, CPU, {"b": Mode("bf16")})
    assert found == {"a": torch.float32, "b": torch.bfloat16}


def test_a_network_is_laid_out_and_compiled_as_the_mode_says():
    network = Mode(channels_last=True).prepared(nn.Conv2d(4, 4, 3))
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    assert network._compiled_call_impl is None
    assert Mode(compile=True).prepared(nn.Conv2d(4, 4, 3))._compiled_call_impl is not None
