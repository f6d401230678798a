"""A tiny SAM with random weights, and transformers' with the same."""

import cv2
import numpy as np
import torch
from transformers import SamConfig, SamModel

from segfolio.architectures.promptable.sam import SAM
from segfolio.weights.sam import from_transformers

SIDE: int = SAM.tiny["image_size"]


def sam_pair(shift: float = 0.8) -> tuple[SAM, SamModel]:
    """Both in evaluation. Masks differ from point to point, and are small: random weights alone give any point
    the same half of the image.

    Args:
        shift: by which the logits are lowered.
    """
    generator = torch.Generator().manual_seed(0)
    tiny = SAM.tiny
    vision = {
        "hidden_size": tiny["width"],
        "mlp_dim": 4 * tiny["width"],
        "num_hidden_layers": tiny["depth"],
        "num_attention_heads": tiny["heads"],
        "global_attn_indexes": list(tiny["global_blocks"]),
        "window_size": tiny["window"],
        "image_size": SIDE,
    }
    peer = SamModel(SamConfig(vision_config=vision, prompt_encoder_config={"image_size": SIDE})).eval()
    for weight in peer.parameters():
        if weight.ndim > 1:
            torch.nn.init.xavier_uniform_(weight.data, generator=generator)
    decoder = peer.mask_decoder
    decoder.iou_prediction_head.proj_out.bias.data[:] = 0.8
    decoder.upscale_conv2.weight.data[:, 0], decoder.upscale_conv2.bias.data[0] = 0, 4  # a channel that is 4
    for head in decoder.output_hypernetworks_mlps:
        head.proj_out.weight.data[0], head.proj_out.bias.data[0] = 0, -shift / 4
    decoder.mask_tokens.weight.data.mul_(0.1)
    for layer in decoder.transformer.layers:  # the tokens of masks listen to that of the point
        for attention in (layer.self_attn, layer.cross_attn_token_to_image):
            attention.out_proj.weight.data.mul_(6)
    ours = SAM(1, **tiny).eval()
    ours.load_state_dict(from_transformers(peer.state_dict()))
    return ours, peer


def picture(height: int, width: int) -> np.ndarray:
    """`[H, W, 3]` of coarse colours."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
