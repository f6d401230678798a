"""Under which names transformers keeps the weights of RF-DETR-Seg (arXiv 2511.09554)."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

NAMES = (  # of transformers, to ours
    (r"^(model\.)?(model\.)?backbone\.backbone\.", "vit."),
    (r"^(model\.)?model\.", ""),
    (r"^backbone\.projector\.(projector_layer\.)?", "projector."),
    (r"^vit\.embeddings\.patch_embeddings\.projection", "vit.patch_embed.proj"),
    (r"^vit\.embeddings\.position_embeddings", "vit.pos_embed"),
    (r"^vit\.embeddings\.", "vit."),
    (r"^vit\.encoder\.layer\.", "vit.blocks."),
    (r"^vit\.layernorm", "vit.norm"),
    (r"\.attention\.o_proj", ".attn.proj"),
    (r"\.layer_scale(\d)\.lambda1", r".ls\1.gamma"),
)


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of transformers' under the names here, query, key and value as one; one of ours as it is."""
    renamed = {}
    for theirs, value in state.items():
        key = theirs
        for pattern, name in NAMES:
            key = re.sub(pattern, name, key)
        if ".attention.q_proj." in key:
            parts = [state[theirs.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            renamed[key.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
        elif ".attention." not in key and key != "vit.mask_token":  # of DINOv2's training
            renamed[key] = value
    return renamed
