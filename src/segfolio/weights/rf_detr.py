"""Released weights of RF-DETR-Seg (arXiv 2511.09554): under which names, and of which classes and queries they are."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from segfolio.errors import SegfolioError

COCO: tuple[str, ...] = tuple(get_model_weights("fasterrcnn_resnet50_fpn")["COCO_V1"].meta["categories"])
OF_CLASSES = re.compile(r"(class_embed|enc_out_class_embed\.\d+)\.")
OF_QUERIES = ("query_feat.weight", "reference_point_embed.weight")
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


def own_names(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """A state dict of transformers' under the names here, query, key and value as one; one of ours as it is.

    Args:
        source: where the weights come from, for the error.

    Raises:
        SegfolioError: a query without its key or value.
    """
    renamed = {}
    for theirs, value in state.items():
        key = theirs
        for pattern, name in NAMES:
            key = re.sub(pattern, name, key)
        if ".attention.q_proj." in key:
            parts = [theirs.replace("q_proj", f"{part}_proj") for part in "qkv"]
            if missing := [part for part in parts if part not in state]:
                raise SegfolioError(
                    f"{source}: {' and '.join(missing)} is missing beside {theirs}; it needs a whole state dict of "
                    "transformers' RfDetrForInstanceSegmentation"
                )
            renamed[key.replace("attention.q_proj", "attn.qkv")] = torch.cat([state[part] for part in parts])
        elif ".attention." not in key and key != "vit.mask_token":  # of DINOv2's training
            renamed[key] = value
    return renamed


def of_classes(state: dict[str, Tensor], num_classes: int) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights with the rows of the classes here, and their names: of COCO's 91 ids the 80 that exist.

    Of as many classes as here they are as they were; of others all but the layers of classes is left.
    """
    used = [place for place, name in enumerate(COCO) if place and name != "N/A"]
    rows = len(state.get("class_embed.bias", ()))
    if rows in (0, num_classes):
        return state, ()
    if rows == len(COCO) and num_classes == len(used):
        kept = {key: value[used] if OF_CLASSES.match(key) else value for key, value in state.items()}
        return kept, tuple(COCO[place] for place in used)
    return {key: value for key, value in state.items() if not OF_CLASSES.match(key)}, ()


def of_queries(state: dict[str, Tensor], num_queries: int, groups: int) -> dict[str, Tensor]:
    """The weights with the first `num_queries` of each of `groups`; as they were, where there are not more."""
    kept = dict(state)
    for key in OF_QUERIES:
        table = kept.get(key)
        if table is not None and len(table) > groups * num_queries and not len(table) % groups:
            kept[key] = table.unflatten(0, (groups, -1))[:, :num_queries].flatten(0, 1)
    return kept
