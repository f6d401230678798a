"""ResNeSt under DeepLabV3's head: poolings where strides were, and torchvision's head under the same weights."""

import torch
from torch import nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from segfolio.architectures.dilated.resnest import ResNeStDeepLab


def test_dilated_blocks_keep_their_pooling_and_shortcuts_lose_theirs() -> None:
    """`avd` and `avg_down` of the authors' `resnet.py` with `dilated=True`."""
    with torch.device("meta"):
        network = ResNeStDeepLab(150).backbone
    for stage, dilation in ((network.layer3, 2), (network.layer4, 4)):
        pooling, shortcut = stage[0].avd_last, stage[0].downsample[0]
        assert (pooling.kernel_size, pooling.stride, pooling.padding) == (3, (1, 1), 1)
        assert shortcut.kernel_size == 1
        assert [block.conv2.conv.dilation[0] for block in stage] == [dilation // 2, *[dilation] * (len(stage) - 1)]
        assert all(block.avd_last is None for block in stage[1:])
    assert network.layer2[0].avd_last.stride == (2, 2)


def test_the_head_is_torchvisions() -> None:
    torch.manual_seed(0)
    network = ResNeStDeepLab(5, **{**ResNeStDeepLab.tiny, "channels": 256}).eval()
    channels = network.channels[-1]
    theirs = DeepLabHead(channels, 5, (12, 24, 36)).eval()
    ours = nn.ModuleList([network.aspp, *network.head])
    names = {"0": "0", "1": "1", "2": "2", "5": "4"}  # dropout is in between
    state = {f"{names[k.split('.')[0]]}.{k.partition('.')[2]}": v for k, v in ours.state_dict().items()}
    theirs.load_state_dict(state)
    x = torch.randn(2, channels, 9, 13)
    torch.testing.assert_close(network.head(network.aspp(x)), theirs(x))


def test_a_lone_image_trains_though_its_attention_is_normalised() -> None:
    torch.manual_seed(0)
    network = ResNeStDeepLab(3, backbone="resnest14d", channels=16).train()
    logits, auxiliary = network(torch.randn(1, 3, 33, 33))
    assert logits.shape == auxiliary["aux"].shape == (1, 3, 33, 33)
    assert logits.isfinite().all()
