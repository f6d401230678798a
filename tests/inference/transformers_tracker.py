"""transformers' tracking, driven as `Tracker` is; and, if it is asked for, with what the release does otherwise."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import Sam2VideoInferenceSession


class TransformersTracker:
    """
    Args:
        model: a `Sam2VideoModel`, which this changes if it is to do as the release does.
        video: `[T, 3, H, W]`, normalised and of the model's size.
        as_released: as in facebookresearch/sam2, and not as in transformers 5.23: a mask that is corrected is given
            back with the correction; a frame where one object is corrected is remembered of the others as it was; the
            pointer to a mask that is given is that of the one mask, not the best of three; and a mask that is given is
            remembered at the size of the network's own, enlarged.
    """

    def __init__(self, model: Any, video: Tensor, as_released: bool = False) -> None:
        self.model = model
        self.session = Sam2VideoInferenceSession(video, *video.shape[2:], dtype=video.dtype)
        if as_released:
            self._encode, model._batch_encode_memories = model._batch_encode_memories, self._encode_each
            self._infer, model._run_single_frame_inference = model._run_single_frame_inference, self._infer_again
            self._forward, model._single_frame_forward = model._single_frame_forward, self._forward_mask

    def points(self, frame: int, number: int, points: Tensor, kinds: Tensor, box: Tensor | None = None) -> Tensor:
        """All points `[K, 2]` of an object, of which the first pixel is at (0.5, 0.5), and its box; returns its mask
        `[h, w]`."""
        points = points - 0.5
        if box is not None:
            points, kinds = torch.cat([box.reshape(2, 2), points]), torch.cat([torch.tensor([2, 3]), kinds])
        index = self.session.obj_id_to_idx(number)
        given = {"point_coords": points[None, None], "point_labels": kinds[None, None].int()}
        self.session.add_point_inputs(index, frame, given)
        self.session.remove_mask_inputs(index, frame)
        return self._prompted(frame, number)

    def mask(self, frame: int, number: int, mask: Tensor) -> Tensor:
        index = self.session.obj_id_to_idx(number)
        self.session.add_mask_inputs(index, frame, mask[None, None].float())
        self.session.remove_point_inputs(index, frame)
        return self._prompted(frame, number)

    def follow(self, frame: int, backwards: bool = False) -> tuple[Tensor, Tensor]:
        """Masks `[P, h, w]` and object scores `[P]`."""
        found = self.model(self.session, frame_idx=frame, reverse=backwards)
        return found.pred_masks[:, 0], found.object_score_logits.flatten()

    def _prompted(self, frame: int, number: int) -> Tensor:
        self.session.obj_with_new_inputs = [number]
        return self.model(self.session, frame_idx=frame).pred_masks[self.session.obj_id_to_idx(number), 0]

    def _encode_each(self, **given: Any) -> None:
        lists = [key for key, value in given.items() if isinstance(value, list)]
        for one in zip(*(given[key] for key in lists), strict=True):
            alone = {key: [value] for key, value in zip(lists, one, strict=True)}
            masks = self._before(alone["objects_needing_memory_encoding"][0], given["frame_idx"])
            large = interpolate(masks, (self.model.image_size, self.model.image_size), mode="bilinear")
            self._encode(**{**given, **alone, "high_res_masks_for_memory": [large]})

    def _infer_again(self, **given: Any) -> Any:
        if given["point_inputs"] is not None:
            before = self._before(given["obj_idx"], given["frame_idx"])
            given["prev_sam_mask_logits"] = None if before is None else before.clamp(-32, 32)
        return self._infer(**given)

    def _forward_mask(self, **given: Any) -> Any:
        given.setdefault("multimask_output", False)  # which is left out for a mask that is given
        return self._forward(**given)

    def _before(self, index: int, frame: int) -> Any:
        """The mask of an object in a frame, if it has one."""
        found = [self.session.get_output(index, frame, "pred_masks", first) for first in (True, False)]
        return next((masks for masks in found if masks is not None), None)
