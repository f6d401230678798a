"""Blocks of mask transformers that are computed a second time: what a training step keeps is in
`transformer/test_memory.py`."""

from typing import Any

import pytest
import torch

from segfolio.architectures.mask_classification.eomt import EoMT
from segfolio.architectures.mask_classification.eomt_dinov3 import EoMTDINOv3
from segfolio.architectures.mask_classification.pmt import PMT


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [(EoMT, {"drop_path": 0.5}), (EoMTDINOv3, {"drop_path": 0.5}), (PMT, {"frozen": False}), (PMT, {})],
    ids=["EoMT", "EoMTDINOv3", "PMT, trained", "PMT"],
)
def test_gradients_are_the_same(cls: Any, arguments: dict[str, Any]) -> None:
    """Also of what is dropped at random, and of queries that are let go of their masks at random."""
    torch.manual_seed(0)
    plain, sparing = (cls(3, **cls.tiny, **arguments, checkpointing=given).train() for given in (False, True))
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for network in (plain, sparing):
        network.mask_probabilities = [0.5] * len(network.mask_probabilities)
        torch.manual_seed(0)
        output = network(images)
        sum(x.square().mean() for layer in output.layers for x in layer[:2] if x is not None).backward()
    for (name, p), q in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None and q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-7)
    assert any(p.grad is not None for p in plain.layers.parameters())
