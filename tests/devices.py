"""A device that is not there: its tensors lie in host memory, with real values, and may not meet those of the host.

Code on it runs as it would on CUDA, wherever values decide what comes next, and fails where CUDA would: an operation
on tensors of two devices, a constant without `device=`, numpy on a tensor that was not brought to the host.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

DEVICE = torch.device("cuda", 0)
HOST = torch.device("cpu")

_BETWEEN_DEVICES = {
    *(Tensor.copy_, Tensor.to, Tensor.type_as, Tensor.data.__set__, Tensor.grad.__set__),
    torch._has_compatible_shallow_copy_type,
}
_OF_ONE_DEVICE = {torch.stack, torch.cat, torch.concat}
"""Where a single number of the host is not accepted either."""


class PretendedDevice(TorchFunctionMode):
    """In this context tensors can be moved to `DEVICE`, and made there.

    Raises:
        RuntimeError: where torch would refuse tensors of two devices.
        TypeError: where numpy is asked to read a tensor that is not in host memory.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _GETTERS:
            return _GETTERS[func](args[0])
        if func in (Tensor.numpy, Tensor.__array__) and _place(args[0]) == DEVICE:
            raise TypeError(f"can't convert {DEVICE} device type tensor to numpy; use Tensor.cpu() first")
        _check(func, args, kwargs)
        args, kwargs, place = _in_host_memory(func, args, kwargs)
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
        return _marked(func(*args, **kwargs), place, given)


def _place(tensor: Tensor) -> torch.device:
    """Of its storage, which views, parameters and subclasses share."""
    return getattr(tensor.untyped_storage(), "pretended", HOST)


_GETTERS: dict[Any, Callable[[Tensor], Any]] = {
    Tensor.device.__get__: _place,
    Tensor.is_cuda.__get__: lambda tensor: _place(tensor) == DEVICE,
    Tensor.is_cpu.__get__: lambda tensor: _place(tensor) == HOST,
}


def _tensors(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, list | tuple | Mapping):
        for each in node.values() if isinstance(node, Mapping) else node:
            yield from _tensors(each)


def _check(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    given = [*_tensors((args, kwargs))]
    if func in (Tensor.__getitem__, Tensor.__setitem__) and _place(args[0]) == DEVICE:
        given = [args[0], *_tensors(args[2:])]  # whose index may lie in host memory
    there = any(_place(tensor) == DEVICE for tensor in given)
    here = any(_place(tensor) == HOST and (tensor.ndim or func in _OF_ONE_DEVICE) for tensor in given)
    if there and here and func not in _BETWEEN_DEVICES:
        raise RuntimeError(f"{resolve_name(func) or func} got tensors on {DEVICE} and on {HOST}")


def _in_host_memory(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any], torch.device]:
    """The arguments with the host in place of every device, and where the outcome belongs."""
    asked = kwargs.get("device")
    if func is Tensor.to:
        args = [torch.device(a) if isinstance(a, str) else a for a in args]
        asked = next((a for a in args if isinstance(a, torch.device)), asked)
        args = [HOST if isinstance(a, torch.device) else a for a in args]
    if func in (Tensor.to, Tensor.type_as) and len(args) > 1 and isinstance(args[1], Tensor):
        asked = _place(args[1])
    if func in (Tensor.cpu, Tensor.copy_):
        asked = HOST if func is Tensor.cpu else _place(args[0])
    if asked is None:
        asked = DEVICE if any(_place(tensor) == DEVICE for tensor in _tensors((args, kwargs))) else HOST
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": HOST}
    return args, kwargs, DEVICE if torch.device(asked).type == DEVICE.type else HOST


def _marked(found: Any, place: torch.device, given: Collection[int]) -> Any:
    """What was found, with every tensor in it at its place: a copy of what was given, where that lies elsewhere."""
    if isinstance(found, Iterator):
        return iter([_marked(each, place, given) for each in found])
    for tensor in _tensors(found):
        if _place(tensor) != place:
            if tensor is found and tensor.untyped_storage().data_ptr() in given:
                found = tensor = tensor.clone()
            tensor.untyped_storage().pretended = place  # type: ignore[attr-defined]
    return found


class PretendedAccelerator(Accelerator):
    """For `Trainer(accelerator=PretendedAccelerator(), ...)` in the context of a `PretendedDevice`."""

    def setup_device(self, device: torch.device) -> None:
        pass

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    def teardown(self) -> None:
        pass

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [DEVICE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "pretended"
