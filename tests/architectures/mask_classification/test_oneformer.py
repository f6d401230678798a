"""OneFormer equals transformers' under the same weights, in its answers, its texts and its losses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import OneFormerConfig, OneFormerForUniversalSegmentation

from segfolio.architectures.mask_classification.oneformer import OneFormer
from segfolio.errors import SegfolioError
from segfolio.layers.backbones import SWINS, backbone_config
from segfolio.layers.hollow import hollow
from segfolio.losses import MaskClassificationLoss, OneFormerLoss
from segfolio.losses.mask_matching import MaskTarget
from segfolio.losses.one_former import contrastive
from segfolio.weights.clip_words import _tokenizer, as_words

SWIN = "swin_tiny_patch4_window7_224"
NAMES = ("wall", "car", "person", "traffic light", "sky")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def transformers_own(backbone: str, training: bool = True) -> Any:
    """transformers' OneFormer of the size of `OneFormer.tiny`, with random weights throughout."""
    config = OneFormerConfig(
        backbone_config=backbone_config(backbone),
        num_queries=16,
        num_labels=5,
        conv_dim=64,
        mask_dim=64,
        hidden_dim=64,
        encoder_layers=1,
        decoder_layers=4,
        num_attention_heads=4,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        text_encoder_width=64,
        text_encoder_num_layers=1,
        text_encoder_n_ctx=4,
        dropout=0.0,
        is_training=training,
    )
    model = OneFormerForUniversalSegmentation(config).eval()
    for name, p in model.named_parameters():
        if name != "criterion.logit_scale":
            torch.nn.init.normal_(p, std=0.1 if "task_mlp.layers.0" not in name else 1e-5)  # of numbers up to 49407
    return model


@pytest.mark.parametrize("backbone", ["test_efficientnet", SWIN])
def test_logits_texts_and_queries_are_transformers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backbone: str
) -> None:
    monkeypatch.setitem(SWINS, "tiny", (16, (1, 2, 1, 1), (1, 2, 2, 4)))
    theirs = transformers_own(backbone)
    state = {key: value.contiguous() for key, value in theirs.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    weights = str(tmp_path / "model.safetensors")
    ours = OneFormer(5, **{**OneFormer.tiny, "backbone": backbone}, weights=weights)
    ours.read(NAMES)
    images, tasks = torch.randn(2, 3, 64, 96), torch.tensor([0, 2])
    told = [[*(f"a photo with a {NAMES[c]}" for c in (1, 1, 3)), *9 * ["a semantic photo"]], 12 * ["a panoptic photo"]]
    asked = as_words(["the task is semantic", "the task is panoptic"], None, 77)
    texts = torch.stack([as_words(each, None, 77) for each in told])
    with torch.no_grad():
        other = theirs(images, asked, text_inputs=texts)
        evaluated = ours.eval()(images, tasks)
        ours.train()
        ours.model.pixel_level_module.encoder.eval()  # batch statistics, stochastic depth
        trained = ours(images, tasks, [torch.tensor([3, 1, 1]), torch.tensor([], dtype=torch.int64)])
    assert evaluated.auxiliary == []
    assert evaluated.dense is None
    for mine in (evaluated, trained):
        torch.testing.assert_close(mine.class_logits, other.class_queries_logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine.mask_logits, other.masks_queries_logits, rtol=1e-5, atol=1e-5)
    assert len(trained.auxiliary) == 3  # of the queries from the task's token and of two layers
    for (classes, masks, _), auxiliary in zip(trained.auxiliary, other.auxiliary_predictions, strict=True):
        torch.testing.assert_close(classes, auxiliary["class_queries_logits"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(masks, auxiliary["masks_queries_logits"], rtol=1e-5, atol=1e-5)
    assert trained.dense is not None
    torch.testing.assert_close(trained.dense["texts"], other.text_queries, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        trained.dense["queries"], other.transformer_decoder_contrastive_queries, rtol=1e-5, atol=1e-5
    )
    wanted = theirs.criterion.loss_contrastive(trained.dense["queries"], trained.dense["texts"])["loss_contrastive"]
    torch.testing.assert_close(contrastive(**trained.dense), wanted)


def test_the_task_changes_the_answer_and_one_is_answered_where_none_is_asked() -> None:
    network = OneFormer(5, **OneFormer.tiny).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        semantic, instance, panoptic = (network(images, torch.tensor([task])).class_logits for task in range(3))
        assert torch.equal(network(images).class_logits, panoptic)
    assert not torch.equal(semantic, instance)  # by little: CLIP's start and end are the largest numbers of all


def test_every_task_is_answered_of_what_is_embedded_once() -> None:
    network = OneFormer(5, **OneFormer.tiny).eval()
    images = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        pixels = network.embed(images)
        for task in range(3):
            tasks = torch.tensor([task, 2])
            for whole, part in zip(network(images, tasks)[:2], network.answer(pixels, images, tasks)[:2], strict=True):
                assert torch.equal(whole, part)


def test_the_vocabulary_is_read_once() -> None:
    _tokenizer.cache_clear()
    OneFormer(5, **OneFormer.tiny).read(NAMES)
    assert _tokenizer.cache_info().misses == 1


def test_nothing_is_dropped_in_evaluation() -> None:
    network = OneFormer(5, **{**OneFormer.tiny, "dropout": 0.5})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(*(network.eval()(images).mask_logits for _ in range(2)))
        assert not torch.equal(*(network.train()(images).mask_logits for _ in range(2)))


def test_a_released_model_without_its_text_encoder_is_read_from_its_folder(tmp_path: Path) -> None:
    theirs = transformers_own("test_efficientnet", training=False)
    assert not any("text_mapper" in key for key in theirs.state_dict())
    theirs.save_pretrained(tmp_path)
    ours = OneFormer(5, **OneFormer.tiny, weights=str(tmp_path)).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = theirs(images, as_words(["the task is instance"], None, 77)).masks_queries_logits
        found = ours(images, torch.tensor([1])).mask_logits
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_words_are_those_of_clip(tmp_path: Path) -> None:
    """Of a vocabulary with two pairs, and of none, in which bytes have CLIP's numbers: of `a` and of `!` at its end."""
    vocabulary = {
        "<|startoftext|>": 9,
        "<|endoftext|>": 8,
        "a</w>": 0,
        "c": 1,
        "a": 2,
        "t</w>": 3,
        "ca": 4,
        "cat</w>": 5,
    }
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    assert as_words(["a Cat", "a"], str(tmp_path), 6).tolist() == [[9, 0, 5, 8, 0, 0], [9, 0, 8, 0, 0, 0]]
    assert as_words(["a cat cat cat cat"], str(tmp_path), 5).tolist() == [[9, 0, 5, 5, 8]]
    assert as_words(["a !"], None, 5).tolist() == [[49406, 320, 256, 49407, 0]]
    with pytest.raises(SegfolioError, match=r"holds no vocabulary; expected CLIP's vocab\.json"):
        as_words(["a"], str(tmp_path.parent), 5)


def test_segments_are_told_by_class_as_far_as_there_is_room() -> None:
    network = OneFormer(5, **{**OneFormer.tiny, "num_queries": 7})
    network.read(NAMES)
    with torch.no_grad():
        one, many = network.of_texts(torch.tensor([1, 1]), [torch.tensor([4, 0]), torch.tensor([3, 3, 2, 1, 0])])
        other = network.of_texts(torch.tensor([1]), [torch.tensor([0, 1, 2])])[0]
    torch.testing.assert_close(one[0], many[0])  # a wall
    torch.testing.assert_close(many[:3], other[:3])  # a wall, a car, a person; no room for the lights
    assert not torch.equal(one[1], one[2])  # the sky, and the task
    torch.testing.assert_close(one[3:], network.model.text_mapper.prompt_ctx.weight)


def test_losses_have_one_more() -> None:
    network = OneFormer(5, **OneFormer.tiny).train()
    network.read(NAMES)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :32], masks[1, 32:] = True, True
    targets = [MaskTarget(torch.tensor(labels), masks) for labels in ([0, 3], [2, 2])]
    output = network(torch.randn(2, 3, 64, 64), torch.tensor([0, 1]), [target.labels for target in targets])
    assert output.dense is not None
    criterion = OneFormerLoss(points=64)
    assert criterion.names == ("class", "mask", "dice", "contrastive")
    torch.manual_seed(0)
    losses = criterion(output.layers, targets, **output.dense)
    torch.manual_seed(0)
    plain = MaskClassificationLoss(points=64)(output.layers, targets)
    assert {name: loss for name, loss in losses.items() if name != "contrastive"} == plain
    torch.testing.assert_close(losses["contrastive"], contrastive(**output.dense) / 2)
    with pytest.raises(SegfolioError, match="OneFormerLoss needs a network whose queries are compared with texts"):
        criterion(output.layers, targets)


def test_classes_without_names_have_the_text_of_the_task() -> None:
    torch.manual_seed(0)
    network = OneFormer(5, **OneFormer.tiny)
    tasks = torch.tensor([0, 2])
    with torch.no_grad():
        said, alone = (network.of_texts(tasks, labels) for labels in ([torch.tensor([1]), torch.tensor([3])], None))
    assert torch.equal(said, alone)


@pytest.mark.parametrize(
    ("variant", "classes", "millions"),
    [
        ("OneFormer, Swin-L", 133, 219),
        ("OneFormer, Swin-L, 250 queries", 150, 219),
        ("OneFormer, ConvNeXt-L, 250 queries", 19, 220),
        ("OneFormer, ConvNeXt-XL, 250 queries", 19, 372),
    ],
)
def test_parameters_are_those_of_the_tables_without_the_text_encoder(variant: str, classes: int, millions: int) -> None:
    with hollow():
        network = OneFormer(classes, **OneFormer.variants[variant])
    found = sum(p.numel() for p in network.model.parameters()) - sum(
        p.numel() for p in network.model.text_mapper.parameters()
    )
    assert round(found / 1e6) == millions


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_queries": 4}, "num_queries of OneFormer is 4 and contexts 4, which leaves no query"),
        ({"width": 32}, "width of OneFormer is 32, of which its text encoder makes heads of 64 channels"),
        ({"heads": 3}, "and its decoder 3 heads; give 64 or more, a multiple of 3"),
        ({"task": "foo"}, "task of OneFormer is 'foo'; give one of semantic, instance, panoptic"),
        ({"weights": "ms_in22m"}, "ms_in22m is neither a file"),
    ],
)
def test_what_does_not_fit_is_said(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SegfolioError, match=sentence):
        OneFormer(5, **{**OneFormer.tiny, **arguments})
    with pytest.raises(SegfolioError, match="has 5 classes and is told 1 names"):
        OneFormer(5, **OneFormer.tiny).read(["wall"])
