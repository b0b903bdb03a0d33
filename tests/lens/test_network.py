"""The description of a network."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn

import nets
from seewhy.classifier import Classifier
from seewhy.lens.cost import cost
from seewhy.lens.network import LENSES, describe
from seewhy.lens.receptive import receptive_fields


@pytest.mark.parametrize("name", nets.FAMILIES)
def test_rows_say_what_the_lenses_found(name: str) -> None:
    net = nets.classifier(nets.FAMILIES[name]())
    network = describe(net)
    costs, fields = cost(net), receptive_fields(net)
    assert [row.address for row in network.rows] == [each.address for each in costs.operations]
    assert network.multiply_adds == sum(row.multiply_adds for row in network.rows)
    assert network.parameters == net.parameters == sum(row.parameters for row in network.rows)
    for row in network.rows:
        field = fields.get(row.address)
        assert row.window == (None if field is None else field.size)
    assert network.rows[-1].shape == (1, 5)
    assert network.lacking == dict.fromkeys(LENSES, ())
    assert network.notes == ()
    assert json.loads(json.dumps(asdict(network)))["rows"][0]["op"] == network.rows[0].op


def test_in_place_is_said() -> None:
    rows = {row.address: row for row in describe(nets.classifier(nets.Spelled("in-place"))).rows}
    assert rows["relu:relu"].in_place
    assert rows[":add"].in_place
    assert not rows["conv1:conv2d"].in_place
    assert rows["conv2:conv2d"].window == (5, 5)
    assert rows[":max_pool2d"].stride == (2, 2)


class Strange(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.cumsum(2) * (x > 0)
        return x[:, :, int(x.argmax()) * 0 :].mean((2, 3))


def test_a_lens_that_fails_is_reported_in_words() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), Strange(), nn.Linear(4, 2))
    network = describe(Classifier(module, size=8, check=False))
    assert network.lacking == {
        "backward": ("cumsum in 1", "gt in 1"),
        "rescale": ("cumsum in 1", "gt in 1"),
        "relevance": ("cumsum in 1",),
        "receptive field": ("cumsum in 1",),
        "incremental": (),  # computed in full
        "cost": ("cumsum in 1",),
    }
    assert len(network.notes) == 1
    assert "no receptive fields: " in network.notes[0]
    assert all(row.window is None for row in network.rows)
    assert network.multiply_adds == 4 * 36 * 27 + 8


def test_a_scripted_module_is_seen_through() -> None:
    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (2 * x).mean((2, 3))

    traced = torch.export.export(Double(), (torch.rand(1, 3, 8, 8),)).module()
    network = describe(Classifier(traced, size=8, check=False))
    assert [row.op for row in network.rows] == ["mul", "mean"]
