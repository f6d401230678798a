"""SAM 2 equals transformers' of images under the same weights; those of the release load, of both versions."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2VideoConfig, Sam2VideoModel

from segfolio.architectures.promptable.sam2 import SAM2
from segfolio.data.prompts import Prompts
from segfolio.errors import SegfolioError
from segfolio.inference.everything import Everything
from segfolio.inference.prompting import EmbeddedImages
from segfolio.inference.track import Tracker
from segfolio.layers.hollow import hollow
from segfolio.layers.prompting import PromptInput, of_images
from segfolio.layers.tracking import ABSENT, Memory, Recalled
from segfolio.weights.sam2 import MEMORY, under_our_names
from tests.architectures.promptable.prompts import of_kind
from tests.architectures.promptable.transformers_sam import randomised
from tests.architectures.promptable.transformers_sam2 import (
    answers,
    no_point,
    transformers_sam2,
    transformers_sam2_video,
)
from tests.inference.transformers_tracker import TransformersTracker

KINDS = ("point", "points", "box", "box + point", "box + points", "mask", "mask + point", "mask + box")
IMAGES_ALONE = "ignore:.*weights for images alone:UserWarning"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def loaded(theirs: Any, folder: Path, **arguments: Any) -> SAM2:
    torch.save(theirs.state_dict(), folder / "sam2.pt")
    return SAM2(1, **{**SAM2.tiny, **arguments}, weights=str(folder / "sam2.pt")).eval()


@torch.no_grad()
def assert_equal(ours: SAM2, theirs: Any, images: Tensor, prompts: PromptInput, multimask: bool = True) -> None:
    """transformers adds two of "not a point" to a mask that is alone."""
    alone = prompts.masks is not None and prompts.boxes is None and not prompts.kinds.shape[1]
    found = ours(images, no_point(prompts) if alone else prompts, multimask)
    masks, iou, score = answers(theirs, images, prompts, multimask)
    assert masks.std() > 0.1  # not equal because there is nothing
    assert iou.std() > 3e-4
    assert found.object_score is not None
    torch.testing.assert_close(found.masks, masks, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.iou, iou, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.object_score, score, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings(IMAGES_ALONE)
@pytest.mark.parametrize("image_size", [96, 128, 160])
def test_embeddings_are_transformers(tmp_path: Path, image_size: int) -> None:
    theirs, images = transformers_sam2(image_size), torch.randn(2, 3, image_size, image_size)
    with torch.no_grad():
        ours = loaded(theirs, tmp_path, image_size=image_size)
        expected = theirs.get_image_embeddings(images)
        for one, other in zip(ours.attend(ours.embed(images), None), reversed(expected), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings(IMAGES_ALONE)
@pytest.mark.parametrize("multimask", [True, False], ids=["three masks", "one"])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_transformers(tmp_path: Path, kind: str, multimask: bool) -> None:
    theirs, size = transformers_sam2(), (128, 128)
    assert_equal(loaded(theirs, tmp_path), theirs, torch.randn(2, 3, *size), of_kind(kind, size, 32), multimask)


@pytest.mark.filterwarnings(IMAGES_ALONE)
@pytest.mark.parametrize("multimask", [True, False], ids=["three masks", "one"])
@pytest.mark.parametrize("kind", ["points", "box", "box + point"])
def test_answers_to_several_prompts_of_several_images_are_transformers(
    tmp_path: Path, kind: str, multimask: bool
) -> None:
    theirs, size = transformers_sam2(), (128, 128)
    prompts = of_kind(kind, size, 32, images=3, each=4)
    assert_equal(loaded(theirs, tmp_path), theirs, torch.randn(3, 3, *size), prompts, multimask)


@pytest.mark.filterwarnings(IMAGES_ALONE)
@pytest.mark.parametrize("scale", [1, 100], ids=["unstable", "stable"])
def test_one_mask_that_is_not_stable_falls_back_to_the_best_of_three(tmp_path: Path, scale: int) -> None:
    """As transformers has it in evaluation; never in training, nor where it is switched off."""
    sure = scale > 1
    theirs, images, prompts = transformers_sam2(), torch.randn(2, 3, 128, 128), of_kind("points", (128, 128), 32, 2, 3)
    with torch.no_grad():  # logits far from 0, or near it
        for head in theirs.mask_decoder.output_hypernetworks_mlps:
            head.proj_out.weight *= scale
            head.proj_out.bias *= scale
    ours, plain = loaded(theirs, tmp_path), loaded(theirs, tmp_path, fall_back=False)
    with torch.no_grad():
        found, first, three = ours(images, prompts, False), plain(images, prompts, False), ours(images, prompts, True)
        masks, iou, _ = answers(theirs, images, prompts, False)
        assert torch.equal(ours.train()(images, prompts, False).iou, first.iou)
    torch.testing.assert_close(found.masks / scale, masks / scale, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.iou, iou, atol=1e-5, rtol=1e-5)
    expected = first.iou if sure else three.iou.amax(1, keepdim=True)
    torch.testing.assert_close(found.iou, expected, atol=1e-6, rtol=1e-6)
    assert (found.iou != (three.iou.amax(1, keepdim=True) if sure else first.iou)).all()


@torch.no_grad()
def test_a_mask_alone_has_no_token_as_in_the_release() -> None:
    network = SAM2(1, **SAM2.tiny).eval()
    counts = {"point": 2, "points": 4, "box": 3, "box + point": 4, "box + points": 6, "mask": 0, "mask + box": 3}
    for kind, count in counts.items():
        tokens = network.prompt_encoder(of_kind(kind, (128, 128), 32))
        assert tokens.attended.sum(1).tolist() == [count] * 2, kind


def test_an_image_is_resized_to_a_square() -> None:
    assert SAM2(1, **SAM2.tiny).fit(480, 854) == (128, 128)


@pytest.mark.parametrize("size", [(90, 200), (480, 37), (20, 16)])
def test_masks_come_to_the_size_of_an_image_at_once_as_in_the_release(size: tuple[int, int]) -> None:
    """Of images (`SAM2Transforms.postprocess_masks`, whose form transformers' is) and of frames
    (`_get_orig_video_res_output`); SAM's go through the padded square."""
    logits, embedded = torch.randn(2, 32, 32), EmbeddedImages(SAM2(1, **SAM2.tiny), (), [size])
    (expected,) = Sam2ImageProcessor().post_process_masks([logits[None]], [size], binarize=False)
    assert torch.equal(embedded.enlarge(logits, 0), expected[0])
    through = interpolate(interpolate(logits[None], (128, 128), mode="bilinear"), size, mode="bilinear")
    assert ((embedded.enlarge(logits, 0) > 0) != (through[0] > 0)).any()


@pytest.mark.parametrize("size", [(48, 64), (64, 48)], ids=str)
def test_a_grid_of_points_reaches_all_of_an_oblong_image(size: tuple[int, int]) -> None:
    """transformers scales it by the longest side, and asks nothing of a fourth of this image."""
    network = SAM2(1, **SAM2.tiny).eval()
    grid, none = Everything(points_per_side=4).grid(0).float(), torch.zeros(16, dtype=torch.int64)
    asked = Prompts(none, (grid * torch.tensor(size[::-1]))[:, None], torch.ones(16, 1, dtype=torch.int64))
    embedded = EmbeddedImages(network, (), [size])
    torch.testing.assert_close(embedded.of_network(asked, none).points[:, 0] / 128, grid, atol=0.01, rtol=0)


def test_an_image_size_that_is_no_multiple_of_32_is_refused() -> None:
    with pytest.raises(SegfolioError, match="image_size of SAM 2 is 1008, expected a multiple of 32"):
        SAM2(1, image_size=1008)


RELEASED = """
maskmem_tpos_enc no_mem_embed no_mem_pos_enc no_obj_ptr no_obj_embed_spatial image_encoder.trunk.pos_embed
image_encoder.trunk.pos_embed_window image_encoder.trunk.patch_embed.proj.weight image_encoder.trunk.blocks.0.norm1.bias
image_encoder.trunk.blocks.11.attn.qkv.weight image_encoder.trunk.blocks.1.proj.weight
image_encoder.trunk.blocks.0.mlp.layers.1.weight image_encoder.neck.convs.3.conv.weight mask_downsample.weight
memory_attention.layers.3.self_attn.out_proj.weight memory_attention.layers.0.cross_attn_image.k_proj.weight
memory_attention.layers.0.linear1.weight memory_attention.layers.2.norm3.weight memory_attention.norm.bias
memory_encoder.mask_downsampler.encoder.12.weight memory_encoder.mask_downsampler.encoder.1.bias
memory_encoder.pix_feat_proj.weight memory_encoder.fuser.layers.1.dwconv.weight memory_encoder.fuser.layers.0.gamma
memory_encoder.fuser.layers.0.pwconv1.weight memory_encoder.out_proj.bias
sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix sam_prompt_encoder.point_embeddings.3.weight
sam_prompt_encoder.mask_downscaling.6.weight sam_prompt_encoder.no_mask_embed.weight
sam_mask_decoder.transformer.layers.1.mlp.layers.0.weight sam_mask_decoder.obj_score_token.weight
sam_mask_decoder.transformer.layers.0.cross_attn_token_to_image.k_proj.weight sam_mask_decoder.conv_s0.weight
sam_mask_decoder.conv_s1.bias sam_mask_decoder.output_upscaling.1.weight obj_ptr_tpos_proj.weight
sam_mask_decoder.output_hypernetworks_mlps.3.layers.2.weight sam_mask_decoder.iou_prediction_head.layers.0.bias
sam_mask_decoder.pred_obj_score_head.layers.2.weight obj_ptr_proj.layers.0.weight
"""  # some of the names in sam2.1_hiera_tiny.pt


def variant(name: str, **arguments: Any) -> SAM2:
    with hollow():
        return SAM2(1, **SAM2.variants[name], **arguments)


def as_released(network: SAM2) -> dict[str, Tensor]:
    """Its weights under the names of the release, which has a parameter more."""
    renamed = {"no_mem_pos_enc": torch.zeros(1, 1, 256)}
    for key, value in network.state_dict().items():
        key = re.sub(r"^image_encoder\.(conv_s\d)", r"mask_decoder.\1", key)
        key = re.sub(r"^(prompt_encoder|mask_decoder)\.", r"sam_\1.", key)
        renamed[re.sub(r"mlp\.lin(\d)", lambda m: f"mlp.layers.{int(m[1]) - 1}", key)] = value
    return renamed


def test_weights_have_the_names_of_the_release_but_for_a_few() -> None:
    names = as_released(variant("SAM 2.1, Hiera-T")).keys()
    assert len(names) == 471
    assert set(RELEASED.split()) <= names
    assert set(RELEASED.split()) - as_released(variant("SAM 2, Hiera-T")).keys() == {
        "no_obj_embed_spatial",
        "obj_ptr_tpos_proj.weight",
    }


@pytest.mark.parametrize("version", ["2.1", "2.0"])
def test_a_checkpoint_of_the_release_loads(tmp_path: Path, version: str) -> None:
    """Which has the weights under "model"."""
    network = randomised(SAM2(1, **SAM2.tiny, version=version))
    torch.save({"model": as_released(network)}, tmp_path / "sam2.pt")
    copy = SAM2(1, **SAM2.tiny, version=version, weights=str(tmp_path / "sam2.pt"))
    assert all(torch.equal(*pair) for pair in zip(copy.parameters(), network.parameters(), strict=True))


@pytest.mark.parametrize("version", ["2.1", "2.0"])
def test_the_state_dict_of_a_video_model_loads_whole(tmp_path: Path, version: str) -> None:
    theirs = transformers_sam2_video(version)
    ours = loaded(theirs, tmp_path, version=version)
    state = under_our_names(theirs.state_dict())
    assert state.keys() == ours.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())


def test_weights_of_images_alone_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="weights for images alone: the memory begins with random weights"):
        loaded(transformers_sam2(), tmp_path)


@pytest.mark.filterwarnings(IMAGES_ALONE)
@pytest.mark.parametrize("video", [True, False], ids=["video", "image"])
def test_a_released_model_is_read_from_its_folder(tmp_path: Path, video: bool) -> None:
    theirs = transformers_sam2_video() if video else transformers_sam2()
    theirs.save_pretrained(tmp_path)
    ours = SAM2(1, **SAM2.tiny, weights=str(tmp_path)).eval()
    state = under_our_names(theirs.state_dict())
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in state.items())


def millions(network: SAM2) -> float:
    return round(sum(p.numel() for p in network.parameters()) / 1e6, 2)


@pytest.mark.parametrize(
    ("size", "whole", "published"), [("T", 38.96, 38.9), ("S", 46.06, 46.0), ("B+", 80.85, 80.8), ("L", 224.45, 224.4)]
)
def test_parameters(size: str, whole: float, published: float) -> None:
    """Those of version 2.1 are published: 38,962,498 of T with 256 that nothing reads."""
    network = variant(f"SAM 2.1, Hiera-{size}")
    assert millions(network) == whole
    assert whole == pytest.approx(published, abs=0.07)
    assert millions(variant(f"SAM 2, Hiera-{size}")) == pytest.approx(whole - 0.0165, abs=0.01)


def saved(network: SAM2, file: Path) -> str:
    torch.save({k: torch.zeros(()).expand(v.shape) for k, v in network.state_dict().items()}, file)
    return str(file)


def test_weights_of_another_size_or_version_are_named(tmp_path: Path) -> None:
    large, older = (
        saved(variant(name), tmp_path / f"{i}.pt") for i, name in enumerate(("SAM 2.1, Hiera-L", "SAM 2, Hiera-T"))
    )
    message = (
        r"0\.pt is of Hiera-L \(48 blocks, the first of width 144\) and this network of Hiera-T \(12 blocks, the first "
        r"of width 96\)"
    )
    with hollow(), pytest.raises(SegfolioError, match=message):
        SAM2(1, weights=large)
    with hollow(), pytest.raises(SegfolioError, match=r'1\.pt is of SAM 2\.0 .* give the network version: "2\.0"'):
        SAM2(1, weights=older)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"image_encoder.layers.0.conv.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(SegfolioError, match=r"other\.pth: \d+ of the weights are missing: "):
        SAM2(1, **SAM2.tiny, weights=str(tmp_path / "other.pth"))
    with pytest.raises(SegfolioError, match=r"sam2_hiera_t is neither a file nor a repository of the hub"):
        SAM2(1, **SAM2.tiny, weights="sam2_hiera_t")


@pytest.mark.filterwarnings("ignore:.*weights for images alone:UserWarning")
def test_stochastic_depth_grows_and_checkpointing_changes_no_gradient() -> None:
    rates = [b.drop_path.drop_prob for b in SAM2(1, **SAM2.tiny, drop_path=0.4).image_encoder.trunk.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    state, images, found = SAM2(1, **SAM2.tiny).state_dict(), torch.randn(1, 3, 128, 128), []
    for checkpointing in (False, True):
        network = SAM2(1, **SAM2.tiny, checkpointing=checkpointing).train()
        network.load_state_dict(state)
        torch.cat([each.flatten() for each in network.embed(images)]).square().mean().backward()
        found.append([p.grad for p in network.image_encoder.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def recalled_of(memories: list[Memory]) -> Recalled:
    """The first was prompted, the others came one after the other."""
    frames, objects = len(memories), len(memories[0].pointer)
    ages = torch.tensor([0, *range(frames - 1, 0, -1)]).expand(objects, -1)
    distances = torch.arange(frames, 0, -1).expand(objects, -1).float()
    features, pointers = (torch.stack(each, 1) for each in zip(*memories, strict=True))
    return Recalled(features, ages, pointers, distances, 15)


@pytest.mark.parametrize("version", ["2.1", "2.0"])
def test_a_clip_trains_the_memory(version: str) -> None:
    """A point in the first of three frames, and what is remembered in the others, where one object is not there; a mask
    that is given."""
    network = SAM2(1, **SAM2.tiny, version=version).train()
    clip, image, losses = network.embed(torch.randn(3, 3, 128, 128)), torch.zeros(2, dtype=torch.int64), []
    first = of_kind("point", (128, 128), 32)._replace(image=image)
    given = network.take(of_images(clip, slice(1)), torch.ones(1, 128, 128, dtype=torch.bool), image[:1])
    losses.append(given.pointer.square().mean())
    memories = list[Memory]()
    for number in range(3):
        frame = of_images(clip, slice(number, number + 1))
        attended = network.attend(frame, recalled_of(memories) if memories else None)
        asked = first if number == 0 else no_point(first)._replace(image=torch.arange(2))
        reading = network.answer(attended, asked, number == 0)
        found = network.sight(reading)._replace(object_score=torch.tensor([3.0, -3.0]))
        memories.append(network.remember(frame, found, image, torch.tensor([number == 0] * 2)))
        assert reading.object_score is not None
        losses += [network.draw(reading).square().mean(), reading.iou.mean(), reading.object_score.mean()]
    losses.append(memories[-1].pointer.square().mean())
    torch.stack(losses).sum().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert {name for name in without if name.startswith((*MEMORY, "image_encoder."))} <= {"no_obj_ptr"}


@torch.no_grad()
def test_what_is_absent_is_as_if_it_were_not_there() -> None:
    network = randomised(SAM2(1, **SAM2.tiny).eval())
    frame = network.embed(torch.randn(1, 3, 128, 128))
    memories = [Memory(torch.randn(2, 64, 8, 8), torch.randn(2, 256)) for _ in range(3)]
    whole, shorter = recalled_of(memories), recalled_of([memories[0], memories[2]])
    whole.ages[1, 1], whole.distances[1, 1:2] = ABSENT, torch.nan
    shorter = shorter._replace(ages=whole.ages[:, [0, 2]], distances=whole.distances[:, [0, 2]])
    both, other = network.attend(frame, whole), network.attend(frame, shorter)
    torch.testing.assert_close(both[0][1], other[0][1], atol=1e-5, rtol=1e-5)
    assert (both[0][0] - other[0][0]).abs().max() > 1e-2
    network.train()  # in another way on the CPU
    for module in network.modules():
        module.dropout = 0.0 if isinstance(getattr(module, "dropout", None), float) else getattr(module, "dropout", 0)
    network.memory_attention.apply(lambda module: module.eval() if isinstance(module, torch.nn.Dropout) else None)
    torch.testing.assert_close(network.attend(frame, whole)[0], both[0], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings(IMAGES_ALONE)
def test_the_tiny_size_is_transformers(tmp_path: Path) -> None:
    theirs = randomised(Sam2Model(Sam2Config()).eval())
    frequencies = theirs.prompt_encoder.shared_embedding.positional_embedding
    frequencies.copy_(theirs.shared_image_embedding.positional_embedding)
    torch.save(theirs.state_dict(), tmp_path / "sam2.pt")
    ours, size = SAM2(1, weights=str(tmp_path / "sam2.pt")).eval(), (1024, 1024)
    for multimask in (True, False):
        prompts = of_kind("box + point", size, 256, images=1, each=2)
        assert_equal(ours, theirs, torch.randn(1, 3, *size), prompts, multimask)


@pytest.mark.slow
def test_the_tiny_size_follows_as_transformers_does(tmp_path: Path) -> None:
    """An object of a box, into a second and a third frame."""
    theirs = randomised(Sam2VideoModel(Sam2VideoConfig(vision_config={"model_type": "sam2_vision_model"})).eval())
    frequencies = theirs.prompt_encoder.shared_embedding.positional_embedding
    frequencies.copy_(theirs.shared_image_embedding.positional_embedding)
    torch.save(theirs.state_dict(), tmp_path / "sam2.pt")
    ours, size = SAM2(1, weights=str(tmp_path / "sam2.pt")).eval(), (1024, 1024)
    video, box = torch.randn(3, 3, *size), torch.tensor([200.0, 300, 700, 600])
    tracker, other = Tracker(ours, 3, holes=0), TransformersTracker(theirs, video)
    for number in range(3):
        with torch.no_grad():
            image = EmbeddedImages(ours, ours.embed(video[number : number + 1]), [size])
        if number == 0:
            tracker.prompt(0, image, Prompts(torch.tensor([1]), boxes=box[None]))
            other.points(0, 1, torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), box)
        found, (masks, score) = tracker.follow(number, image), other.follow(number)
        torch.testing.assert_close(found.masks, masks, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.object_score, score, atol=1e-5, rtol=1e-5)
