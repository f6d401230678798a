"""SAM 2's mask decoder (arXiv 2408.00714, section 4 and appendix D.1): SAM's, which also says whether the object is
there at all, and reads masks from features of strides 4 and 8 as well. Modules have the names of the release.

Its tokens of masks are kept in the reading: they become the pointers by which an object is remembered.
"""

import torch
from torch import Tensor, nn

from segfolio.layers.prompt_decoder import MLP, MaskDecoder, portions
from segfolio.layers.prompt_encoder import PromptTokens
from segfolio.layers.prompting import Reading

STABLE, BEYOND = 0.98, 0.05  # as the release builds its networks


class ObjectDecoder(MaskDecoder):
    """Tokens of prompts and embeddings of images to masks, how well they fit, and whether there is an object.

    Args:
        dim: C.
        fall_back: in evaluation, where one mask is asked for and it is not stable, the best of the several is answered.
            A mask is stable if at least 0.98 of its pixels above -0.05 are above 0.05.

    The others, by name, are those of `MaskDecoder`.
    """

    def __init__(self, dim: int, fall_back: bool = True, **arguments: int) -> None:
        super().__init__(dim, **arguments)
        self.fall_back = fall_back
        self.obj_score_token = nn.Embedding(1, dim)
        self.pred_obj_score_head = MLP(dim, dim, 1)

    def read_finely(
        self,
        image: Tensor,
        finer: tuple[Tensor, Tensor],
        positions: Tensor,
        prompts: PromptTokens,
        of: Tensor,
        multimask: bool = True,
    ) -> Reading:
        """As `read`, of embeddings `[B, C, h, w]` and their finer features `[B, C / 4, 2h, 2w]` and
        `[B, C / 8, 4h, 4w]`."""
        own = torch.cat([self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        tokens, image = self.attended(own, image, positions, prompts, of)
        score, quality, of_masks = tokens[:, 0], tokens[:, 1], tokens[:, 2:]
        present = self.pred_obj_score_head(score)[:, 0]
        iou, readers = self.iou_prediction_head(quality).sigmoid(), self.readers(of_masks)
        chosen = slice(1, None) if multimask else slice(0, 1)
        if multimask or self.training or not self.fall_back:
            state = (of_masks[:, chosen], readers[:, chosen], image, of, *finer)
            return Reading(iou[:, chosen], present, state)
        masks = self.draw(Reading(iou, None, (of_masks, readers, image, of, *finer)))
        place = _best_unless_stable(masks, iou)
        row = torch.arange(len(place), device=place.device)
        return Reading(iou[row, place][:, None], present, (of_masks[:, chosen], masks[row, place][:, None]))

    def draw(self, reading: Reading, keep: Tensor | None = None) -> Tensor:
        """As `PromptableNetwork.draw` says; what was drawn in order to be read is there already."""
        if len(reading.state) == 2:
            masks = reading.state[1]
            return masks if keep is None else masks[keep]
        _, readers, image, of, *finer = reading.state
        if keep is not None:
            kept = keep.any(1)
            readers, image, of, keep = readers[kept], image[kept], of[kept], keep[kept]
        found = []
        for part in portions(len(image), image):
            eight, four = (each if len(each) == 1 else each.index_select(0, of[part]) for each in finer)
            masks = self._read_off(readers[part], image[part], eight, four)
            found.append(masks if keep is None else masks[keep[part]])
        return torch.cat(found)

    def _read_off(self, readers: Tensor, image: Tensor, eight: Tensor, four: Tensor) -> Tensor:
        """Weights `[P, M, c]` and images `[P, h * w, C]` to logits `[P, M, 4h, 4w]`."""
        side = round(image.shape[1] ** 0.5)
        to_eight, norm, activation, to_four, _ = self.output_upscaling
        pixels = activation(norm(to_eight(image.transpose(1, 2).unflatten(2, (side, side))) + eight))
        pixels = activation(to_four(pixels) + four)
        return torch.einsum("pmc,pchw->pmhw", readers, pixels)


def _best_unless_stable(masks: Tensor, iou: Tensor) -> Tensor:
    """Of logits `[P, M, h, w]` and their estimates `[P, M]` which to answer: the first, or the best of the others."""
    first = masks[:, 0].flatten(1)
    inner, outer = (first > BEYOND).sum(1), (first > -BEYOND).sum(1)
    stable = (inner / outer >= STABLE) | (outer == 0)
    return torch.where(stable, 0, iou[:, 1:].argmax(1) + 1)
