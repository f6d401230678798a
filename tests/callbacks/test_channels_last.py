from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from segfolio.architectures.encoder_decoder.smp import SMP
from segfolio.callbacks.channels_last import ChannelsLast


def test_maps_keep_the_order_and_logits_their_values() -> None:
    torch.manual_seed(0)
    network = SMP(3, encoder="tu-test_resnet").eval()
    images = torch.randn(1, 3, 64, 64)
    before = network(images)
    seen: list[Tensor] = []

    def keep(module: nn.Module, given: Any, map_: Tensor) -> None:
        seen.append(map_)

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(keep)
    ChannelsLast().setup(SimpleNamespace(), SimpleNamespace(network=network), "fit")
    after = network(images)
    assert len(seen) > 20
    assert all(map_.is_contiguous(memory_format=torch.channels_last) for map_ in seen)
    torch.testing.assert_close(after, before)
