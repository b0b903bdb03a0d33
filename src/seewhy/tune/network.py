"""A classifier's network with another last layer, and which of its parts are left as they are."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from seewhy.classifier import Classifier
from seewhy.data.images import Preprocess
from seewhy.errors import ModelError
from seewhy.rng import generator


def like(net: Classifier, module: nn.Module, labels: Sequence[str]) -> Classifier:
    """A classifier of another module with the same pixels; a picture fills its input, without a margin that is cut off."""
    return Classifier(
        module,
        mean=net.mean,
        std=net.std,
        preprocess=Preprocess(net.size, interpolation=net.preprocess.interpolation),
        labels=labels,
        name=net.name,
        probabilities=net.answers_probabilities,
        engine=net.engine,
        check=False,
    )


def with_classes(net: Classifier, labels: Sequence[str], seed: int = 0) -> tuple[Classifier, str]:
    """A classifier of a copy of the module, whose last layer answers a logit for each label; and that layer's address.

    The last layer is the linear one, or else the convolution, that answers as many channels as the model has classes and
    runs last. The new one is drawn by the seed, uniform within ±1/√inputs, its bias 0; a model whose labels are these keeps
    the one that it has. Raises `ModelError` where there is no
    such layer or the network's answers don't come from it alone.
    """
    ran: list[str] = []
    handles = [
        part.register_forward_hook(lambda layer, given, answer, name=name: ran.append(name))
        for name, part in net.module.named_modules()
        if _answers(part, net.classes)
    ]
    try:
        net.predict(torch.zeros(1, 3, *net.size))
    finally:
        for handle in handles:
            handle.remove()
    linear = [name for name in ran if isinstance(net.module.get_submodule(name), nn.Linear)]
    address = (linear or ran or [""])[-1]
    if not address:
        raise ModelError(
            f"{net.name} has no last layer to replace: expected a module's Linear or Conv2d with {net.classes} outputs, "
            "inside a network of PyTorch modules"
        )
    module = copy.deepcopy(net.module)
    parent, _, name = address.rpartition(".")
    if (
        not net.labels_given or tuple(labels) != net.labels
    ):  # a model that knows these classes already goes on with them
        fresh = _fresh(module.get_submodule(address), len(labels), seed)
        setattr(module.get_submodule(parent), name, fresh.to(net.engine.device))
    made = like(net, module, labels)
    try:
        answered = made.predict(torch.zeros(1, 3, *net.size)).shape[1]
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{net.name} does not run with {len(labels)} outputs of its layer {address}: {error}"
        ) from error
    if answered != len(labels):
        raise ModelError(
            f"expected {len(labels)} logits of {net.name} after its layer {address} was replaced, got {answered}"
        )
    return made, address


def _answers(part: nn.Module, outputs: int) -> bool:
    if isinstance(part, nn.Conv2d):
        return part.out_channels == outputs and part.groups == 1
    return isinstance(part, nn.Linear) and part.out_features == outputs


def _fresh(layer: nn.Module, classes: int, seed: int) -> nn.Module:
    """A layer like this one, with other outputs."""
    draw = generator(seed, "tune", "head")
    made: nn.Linear | nn.Conv2d
    if isinstance(layer, nn.Linear):
        made = nn.Linear(layer.in_features, classes, device="meta")
    elif isinstance(layer, nn.Conv2d):
        made = nn.Conv2d(
            *(layer.in_channels, classes, layer.kernel_size, layer.stride, layer.padding, layer.dilation),  # type: ignore[arg-type]
            device="meta",
        )
    else:
        raise ModelError(f"expected a Linear or a Conv2d as the last layer, got {type(layer).__name__}")
    shape = made.weight.shape
    reach = 1 / math.sqrt(math.prod(shape[1:]))
    made.weight = nn.Parameter(reach * (2 * torch.rand(shape, generator=draw) - 1))
    made.bias = nn.Parameter(torch.zeros(classes))
    return made


def first_parts(module: nn.Module, images: Tensor, count: int) -> list[nn.Module]:
    """The parts that run up to the (count + 1)-th convolution, in the order in which they run: those to be left as they were."""
    ran: list[nn.Module] = []
    handles = [
        part.register_forward_hook(lambda layer, given, answer: ran.append(layer))
        for part in module.modules()
        if any(True for _ in _own(part))
    ]
    was = module.training
    try:
        module.eval()
        with torch.no_grad():
            module(images)
    finally:
        module.train(was)
        for handle in handles:
            handle.remove()
    chosen: list[nn.Module] = []
    convolutions = 0
    for part in ran:
        convolutions += isinstance(part, nn.Conv2d)
        if convolutions > count:
            break
        chosen.append(part)
    return chosen


def _own(part: nn.Module) -> Iterator[Tensor]:
    yield from part.parameters(recurse=False)
    yield from part.buffers(recurse=False)


def architecture(spec: str, classes: int) -> nn.Module:
    """The network of a model's spec with so many outputs and weights that mean nothing: what a tuned model's model.py calls."""
    from seewhy import zoo

    return with_classes(zoo.load(spec, check=False), [str(each) for each in range(classes)])[0].module
