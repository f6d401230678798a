"""UPerNet: transformers' head under the same weights, where the two orders of projection and upsampling agree."""

import re

import torch
from torch import Tensor
from transformers import ResNetConfig, UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetHead

from segfolio.architectures.dilated.upernet import UPerNet

NAMES = (
    (r"^pyramid\.0\.levels\.(\d)", r"psp_modules.\1.1"),
    (r"^pyramid\.1", "bottleneck"),
    (r"^lateral", "lateral_convs"),
    (r"^smooth", "fpn_convs"),
    (r"^fuse", "fpn_bottleneck"),
    (r"\.0\.(weight)$", r".conv.\1"),
    (r"\.1\.(\w+)$", r".batch_norm.\1"),
)


def theirs(key: str) -> str:
    for pattern, name in NAMES:
        key = re.sub(pattern, name, key)
    return key


def test_the_head_is_that_of_transformers() -> None:
    """Means over 1 and 2 x 2 parts of a 2 x 2 map: each is constant, or upsampled by nothing, so the order is equal."""
    torch.manual_seed(0)
    ours = UPerNet(5, **{**UPerNet.tiny, "bins": (1, 2)}).eval()
    config = UperNetConfig(backbone_config=ResNetConfig(), hidden_size=16, pool_scales=(1, 2), num_labels=5)
    head = UperNetHead(config, ours.channels).eval()
    state = {theirs(k): v for k, v in ours.state_dict().items() if not k.startswith("backbone.")}
    head.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    expected: Tensor = head(ours.features(images))
    logits = ours(images)
    assert logits.shape == (2, 5, 16, 16)
    torch.testing.assert_close(logits, expected)


def test_parameters_of_the_head() -> None:
    """Counted by hand from the authors' `models.py`: levels and pyramid of 512 channels, 150 classes."""
    with torch.device("meta"):
        network = UPerNet(150)
    pyramid = 4 * (2048 * 512 + 1024) + 9 * 4096 * 512 + 1024
    lateral, smooth = sum(c * 512 + 1024 for c in (256, 512, 1024)), 3 * (9 * 512 * 512 + 1024)
    fuse, classifier = 9 * 2048 * 512 + 1024, 513 * 150
    own = [network.pyramid, network.lateral, network.smooth, network.fuse, network.classifier]
    found = [sum(p.numel() for p in m.parameters()) for m in own]
    assert found == [pyramid, lateral, smooth, fuse, classifier]
