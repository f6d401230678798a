"""Where the code says float32, neither autocast nor TF32 changes it."""

import pytest
import torch

from segfolio.precision import float32_in_words, full_float32, without_autocast

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def high():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def test_inside_products_are_exact_and_outside_all_is_as_it_was():
    a = torch.full((2, 2), 1 + 2**-12)
    with torch.autocast("cpu", torch.bfloat16):
        with full_float32(CPU):
            assert torch.get_float32_matmul_precision() == "highest"
            assert (a @ torch.eye(2)).equal(a)
        assert (a @ torch.eye(2)).dtype == torch.bfloat16
    assert torch.get_float32_matmul_precision() == "high"


def test_an_error_leaves_all_as_it_was():
    with pytest.raises(KeyError), full_float32(CPU):
        raise KeyError
    assert torch.get_float32_matmul_precision() == "high"


def test_a_device_without_autocast_has_none_to_be_turned_off():
    x = torch.ones(2, 2, device="meta")
    with without_autocast(x.device), full_float32(x.device):
        assert (x @ x).dtype == torch.float32


def test_the_record_says_it():
    assert float32_in_words().startswith("matrix products high, convolutions ")
