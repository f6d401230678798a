"""transformers' SAM 2 of the size of `SAM2.tiny`, with random weights throughout, and its answers to our prompts."""

from typing import Any

import torch
from torch import Tensor
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel

from segfolio.architectures.promptable.sam2 import SAM2
from segfolio.layers.prompting import PromptInput
from tests.architectures.promptable.transformers_sam import asked, randomised


def vision(image_size: int = 128) -> dict[str, Any]:
    tiny, width = SAM2.tiny, SAM2.tiny["width"]
    channels = [width << stage for stage in range(4)]
    return {
        "model_type": "sam2_vision_model",
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            **{"hidden_size": width, "image_size": [image_size, image_size], "blocks_per_stage": list(tiny["stages"])},
            **{"embed_dim_per_stage": channels, "num_attention_heads_per_stage": [1, 2, 4, 8]},
            **{"window_size_per_stage": list(tiny["windows"]), "global_attention_blocks": list(tiny["global_blocks"])},
            "window_positional_embedding_background_size": [tiny["background"]] * 2,
        },
        "backbone_channel_list": channels[::-1],
        "backbone_feature_sizes": [[image_size // stride] * 2 for stride in (4, 8, 16)],
    }


def transformers_sam2(image_size: int = 128, **changes: Any) -> Any:
    """Of images."""
    config = Sam2Config(
        vision_config=vision(image_size),  # type: ignore[call-arg]
        prompt_encoder_config={"image_size": image_size},
        mask_decoder_config=changes,
    )
    return _filled(Sam2Model(config))


def transformers_sam2_video(version: str = "2.1", image_size: int = 128) -> Any:
    """Of videos."""
    marks = version == "2.1"
    config = Sam2VideoConfig(
        vision_config=vision(image_size),  # type: ignore[call-arg]
        prompt_encoder_config={"image_size": image_size},
        image_size=image_size,
        memory_attention_num_layers=SAM2.tiny["memory_layers"],
        memory_attention_rope_feat_sizes=[image_size // 16] * 2,
        enable_occlusion_spatial_embedding=marks,
        enable_temporal_pos_encoding_for_object_pointers=marks,
    )
    return _filled(Sam2VideoModel(config))


def answers(model: Any, images: Tensor, prompts: PromptInput, multimask: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Masks `[P, M, h, w]`, scores `[P, M]` and scores of the object `[P]` of transformers, see `asked`."""
    given = asked(prompts, len(images))
    found = model(pixel_values=images, multimask_output=multimask, **given)
    masks, iou, score = (x.flatten(0, 1) for x in (found.pred_masks, found.iou_scores, found.object_score_logits))
    return masks, iou, score[:, 0]


def no_point(prompts: PromptInput) -> PromptInput:
    """With one "not a point" more, which transformers adds to a mask that is alone."""
    kinds = torch.full_like(prompts.image[:, None], -1)
    return prompts._replace(points=torch.zeros(len(kinds), 1, 2), kinds=kinds)


def _filled(model: Any) -> Any:
    """With the same frequencies for points and for cells, as all that is released."""
    frequencies = model.prompt_encoder.shared_embedding.positional_embedding
    frequencies.copy_(model.shared_image_embedding.positional_embedding)
    return randomised(model.eval())
