"""`RecordMetric`: figures are a function of the set of images."""

import numpy as np
import pytest
import torch

from segfolio.metrics.records import RecordMetric


class Kept(RecordMetric):
    def update(self, image_id, record, number=None):
        self.keep(image_id, record, number)

    def compute(self):
        return self.records()


def test_an_image_counts_once_whatever_is_said_of_it_later():
    metric = Kept()
    for image_id, record in (("b", 1), ("a", 2), ("b", 3)):
        metric.update(image_id, record)
    assert metric.compute() == {"a": 2, "b": 1}


def test_images_come_by_number_and_then_by_id():
    metric = Kept()
    for image_id, number in (("z", 9), ("none", None), ("a", 100), ("m", 10)):
        metric.update(image_id, image_id.encode(), number)
    assert list(metric.compute()) == ["z", "m", "a", "none"]


def test_no_image_gives_no_record():
    metric = Kept()
    metric.update("a", 1)
    metric.reset()
    assert metric.records() == {}


@pytest.mark.parametrize("record", [b"\x00\x80.", np.arange(5, dtype=np.int16), {"runs": [1, 2], "score": 0.5}])
def test_records_come_back_as_they_were(record):
    metric = Kept()
    metric.update("a", record)
    metric.update("b", record)
    for found in metric.compute().values():
        np.testing.assert_equal(found, record)


def test_records_stay_in_host_memory_when_the_network_moves():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), Kept())
    network[1].update("a", 1)
    network.to("meta")
    assert network[0].weight.is_meta
    assert network[1].compute() == {"a": 1}
