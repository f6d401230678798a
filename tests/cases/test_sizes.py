"""Any decoder on any encoder gives logits of the image's size, or says when it is built that it cannot."""

import pytest
import torch

from segfolio.architectures.encoder_decoder.smp import SMP
from segfolio.errors import SegfolioError


@pytest.mark.parametrize(
    ("decoder", "encoder", "size"),
    [
        ("unet", "tu-swin_tiny_patch4_window7_224", (64, 96)),  # built for one size
        ("unet", "tu-swinv2_tiny_window8_256", (40, 65)),
        ("dpt", "tu-test_vit", (360, 480)),  # positions, and a decoder that halves an odd grid
        ("pan", "resnet18", (64, 64)),  # a decoder that pools the last map three times
        ("pspnet", "resnet18", (1, 1)),
    ],
)
def test_logits_have_the_size_of_the_image(decoder, encoder, size):
    torch.manual_seed(0)
    network = SMP(3, decoder, encoder).eval()
    images = torch.randn(1, 3, *size)
    logits = network(images)
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()
    assert logits.equal(network(images)), "sizes that were seen change nothing"


def test_a_network_of_one_size_is_refused_before_training():
    with pytest.raises(SegfolioError, match="unet on encoder tu-hiera_tiny_224 does not take images of any size"):
        SMP(3, "unet", "tu-hiera_tiny_224")


def test_windows_are_padded_to_the_native_size_and_ordinary_encoders_to_their_stride():
    assert (SMP(3).multiple, SMP(3).least) == (32, 32)
    assert SMP(3, "unet", "tu-maxvit_rmlp_pico_rw_256").multiple == 256
