"""A GPU answers as the CPU does, and leaves its settings as they were; skipped, saying so, where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from answers import call, values
from nets import FAMILIES, classifier, made, photos
from seewhy.classifier import Classifier
from seewhy.method import registry

#: how far an answer may be, relative to the largest number in it: that of long optimisations follows the rounding
FAR = {"invert": 1e-2, "maximize": 1e-2}
METHODS = sorted(registry())
#: options that take another way through a method than its defaults do
OPTIONS = (
    "exemplars:k=2,per_image=2",
    "maximize:objective=channel(stem;0-1)+diversity(stem)-0.1*tv-blur-l2,number=2,steps=6",
    "maximize:objective=direction(fc;1;0;-1;0;0)+neuron(stem;0;2;3)+layer(stem),steps=6",
    "maximize:objective=logit(cat;ant),parametrization=maco,steps=4",
    "deepdream:objective=neuron(stem;0),octaves=2,steps=3",
)
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")


@pytest.mark.parametrize("spec", [*METHODS, *OPTIONS])
def test_a_gpu_answers_as_the_cpu(spec: str) -> None:
    images = photos()
    here, there = (
        values(call(made(spec), classifier(FAMILIES["mobilenet"]()).to(device), images)) for device in ("cpu", "cuda")
    )
    for one, other in zip(here, there, strict=True):
        assert other.device.type == "cpu"
        scale = float(one.abs().nan_to_num(posinf=0).max())
        torch.testing.assert_close(other, one, rtol=1e-3, atol=max(FAR.get(spec.partition(":")[0], 1e-4) * scale, 1e-6))


def test_float32_is_float32_and_the_settings_come_back() -> None:
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.deterministic, cudnn.benchmark
    net = Classifier(nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 10, 3), nn.Flatten(), nn.Linear(160, 10)), size=8)
    images = torch.rand(64, 3, 8, 8)
    here = net.predict(images)
    there = net.to("cuda").predict(images).cpu()
    assert (cudnn.allow_tf32, products.allow_tf32, cudnn.deterministic, cudnn.benchmark) == before
    assert float((here - there).norm() / here.norm()) < 1e-6
