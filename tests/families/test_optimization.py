import pytest
import torch
from torch import nn

from segfolio.architectures.mask_classification.eomt import EoMT
from segfolio.architectures.transformer.segformer import SegFormer
from segfolio.architectures.transformer.segmenter import Segmenter
from segfolio.errors import SegfolioError
from segfolio.families.optimization import ParameterRules, apply_lr_factors, parameter_groups


def test_biases_get_twice_the_learning_rate_and_no_decay():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1, bias=False))
    optimizer = torch.optim.SGD(
        parameter_groups(net, ParameterRules(2.0, bias_weight_decay=False)), lr=0.1, weight_decay=0.5
    )
    apply_lr_factors(optimizer)
    weights, biases = optimizer.param_groups
    assert [len(g["params"]) for g in (weights, biases)] == [2, 1]
    assert (weights["lr"], weights["weight_decay"]) == (0.1, 0.5)
    assert (biases["lr"], biases["weight_decay"]) == (0.2, 0.0)
    assert "lr_factor" not in biases


def test_biases_may_be_in_groups_of_their_own():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    rules = ParameterRules(norm_weight_decay=False, bias_weight_decay=False, biases_apart=True)
    weights, biases, norm = parameter_groups(network, rules)
    assert [p.shape for group in (weights, biases, norm) for p in group["params"]] == [(2, 1, 1, 1), (2,), (2,), (2,)]
    assert [group.get("biases", False) for group in (weights, biases, norm)] == [False, True, False]
    assert [group.get("weight_decay") for group in (weights, biases, norm)] == [None, 0.0, 0.0]


def test_frozen_parameters_are_left_out():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    net[0].requires_grad_(False)
    assert [len(g["params"]) for g in parameter_groups(net, ParameterRules())] == [2]


def rules(net: nn.Module, **arguments) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter, of 0.1 and 0.5."""
    optimizer = torch.optim.SGD(parameter_groups(net, ParameterRules(**arguments)), lr=0.1, weight_decay=0.5)
    apply_lr_factors(optimizer)
    names = {id(p): name for name, p in net.named_parameters()}
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.queries = nn.Embedding(2, 4)
        self.head = nn.Linear(4, 2)


def test_parts_have_a_learning_rate_of_their_own():
    found = rules(Net(), lr_factors={"backbone": 0.1}, bias_lr_factor=2.0)
    assert found["backbone.0.weight"][0] == 0.1 * 0.1
    assert found["backbone.0.bias"][0] == 0.1 * (0.1 * 2.0)
    assert (found["head.weight"][0], found["head.bias"][0]) == (0.1, 0.2)


def test_normalisations_and_embeddings_need_not_decay():
    found = rules(Net(), norm_weight_decay=False)
    decays = {name for name, (_, decay) in found.items() if decay}
    assert decays == {"backbone.0.weight", "backbone.0.bias", "head.weight", "head.bias"}


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(SegfolioError, match=r"names 'encoder'; the network has backbone.0, backbone.1, queries.weight"):
        parameter_groups(Net(), ParameterRules(lr_factors={"encoder": 0.1}))


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(3))
        self.head = nn.Linear(4, 2)


def test_the_rate_of_a_block_decays_with_the_blocks_that_follow():
    """Of 3 blocks at 0.8: 0.64, 0.8 and 1."""
    factors = {name: rate / 0.1 for name, (rate, _) in rules(Vit(), lr_decay_per_layer={"blocks": 0.8}).items()}
    for place, factor in enumerate((0.64, 0.8, 1.0)):
        of_block = [f for name, f in factors.items() if name.startswith(f"blocks.{place}.")]
        assert of_block == pytest.approx([factor] * 4)
    assert {factors["stem.weight"], factors["head.weight"]} == {1.0}


def test_depth_multiplies_the_other_rules():
    vit = Vit()
    vit.blocks[2].requires_grad_(False)  # a frozen block is one that follows nevertheless
    found = rules(
        vit,
        lr_decay_per_layer={"blocks": 0.5},
        lr_factors={"blocks": 0.1, "stem": 0.2},
        bias_lr_factor=2.0,
        norm_weight_decay=False,
    )
    assert found["blocks.0.0.weight"] == (pytest.approx(0.1 * 0.1 * 0.25), 0.5)
    assert found["blocks.1.1.weight"] == (pytest.approx(0.1 * 0.1 * 0.5), 0.0)
    assert found["blocks.1.0.bias"] == (pytest.approx(0.1 * 0.1 * 0.5 * 2), 0.5)
    assert found["stem.weight"] == (pytest.approx(0.1 * 0.2), 0.5)


def test_the_last_blocks_may_all_have_the_full_rate():
    of = rules(Vit(), lr_decay_per_layer={"blocks": 0.8}, lr_full_blocks={"blocks": 2})
    plain = rules(Vit(), lr_decay_per_layer={"blocks": 0.8})
    last = max(int(name.split(".")[1]) for name in plain if name.startswith("blocks."))
    for name, (rate, _) in of.items():
        in_full = name.startswith(f"blocks.{last - 1}.")
        assert rate == pytest.approx(plain[name][0] / (0.8 if in_full else 1))
    with pytest.raises(SegfolioError, match="lr_full_blocks names 'blocks', which lr_decay_per_layer does not"):
        parameter_groups(Vit(), ParameterRules(lr_full_blocks={"blocks": 2}))


def test_a_list_of_blocks_that_is_not_there_is_named():
    with pytest.raises(SegfolioError, match=r"lr_decay_per_layer names 'layers'; the network's lists are blocks$"):
        parameter_groups(Vit(), ParameterRules(lr_decay_per_layer={"layers": 0.8}))


def test_eomt_s_large_vit_decays_as_in_the_release():
    """Block i of 24 has 0.8 ** (23 - i); what comes before, the first block's; the norm and the rest, the full rate."""
    with torch.device("meta"):
        network = EoMT(150, num_queries=100)
    lr_factors = {"embeddings": 0.0059, "layernorm": 1.0}
    found = rules(network, lr_decay_per_layer={"layers": 0.8}, lr_factors=lr_factors)
    factors = {name: rate / 0.1 for name, (rate, _) in found.items()}
    for place in range(24):
        assert factors[f"layers.{place}.mlp.fc1.weight"] == pytest.approx(0.8 ** (23 - place))
    assert factors["embeddings.cls_token"] == pytest.approx(0.8**23, rel=1e-3)
    assert {factors["layernorm.weight"], factors["query.weight"], factors["mask_head.fc1.weight"]} == {1.0}


def test_transformers_per_pixel_decay_neither_in_norms_nor_in_positions():
    """SegFormer's recipe: the head ten times the rate; and of a ViT of timm, whose table is `pos_embed`."""
    with torch.device("meta"):
        segformer, segmenter = SegFormer(150), Segmenter(150)
    found = rules(segformer, lr_factors={"head": 10.0}, norm_weight_decay=False)
    assert {rate for name, (rate, _) in found.items() if name.startswith("head.")} == {1.0}
    assert {rate for name, (rate, _) in found.items() if name.startswith("encoder.")} == {0.1}
    assert all(bool(decay) != ("norm" in name) for name, (_, decay) in found.items())
    found = rules(segmenter, lr_decay_per_layer={"encoder.blocks": 0.9}, norm_weight_decay=False)
    assert found["encoder.pos_embed"][1] == found["encoder.blocks.3.norm1.weight"][1] == 0
    assert found["encoder.blocks.9.attn.qkv.weight"] == (pytest.approx(0.1 * 0.9**2), 0.5)
