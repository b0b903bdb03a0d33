"""The vocabulary: every spelling of an operation is the same operation, with the same arguments."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn import functional as F
from torch.overrides import get_testing_overrides

import nets
from seewhy.classifier import Classifier
from seewhy.errors import UnknownOperation
from seewhy.lens import ops
from seewhy.lens.lens import Lens
from seewhy.lens.ops import Call


class Listening(Lens):
    """Keeps every call, and refuses what it does not know."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.calls: list[Call] = []
        self._maps: list[Tensor] = []

    def entered(self, inputs: tuple[Any, ...]) -> None:
        self._maps.extend(ops.tensors(inputs))

    def follows(self, *values: Any) -> bool:
        return any(any(tensor is seen for seen in self._maps) for tensor in ops.tensors(values))

    def operation(self, call: Call) -> Any:
        result = call.run()
        self.calls.append(call)
        if self.follows(call.args, call.kwargs):
            self._maps.extend(ops.tensors(result))
        return result


class Part(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def listen(module: nn.Module | Callable[[Tensor], Any], image: Tensor | None = None) -> list[Call]:
    module = module if isinstance(module, nn.Module) else Part(module)
    if not isinstance(module, torch.fx.GraphModule):
        module.eval()
    lens = Listening(module)
    with torch.no_grad():
        given = torch.rand(1, 4, 6, 6) if image is None else image
        with lens:
            module(given)
    return lens.calls


def only(function: nn.Module | Callable[[Tensor], Any]) -> Call:
    (call,) = listen(function)
    return call


# One operation, many spellings


def _ignored(x: Tensor) -> Tensor:
    x.relu_()
    return x


RELUS: dict[str, tuple[nn.Module | Callable[[Tensor], Any], bool]] = {
    "module": (nn.ReLU(), False),
    "module in place": (nn.ReLU(inplace=True), True),
    "functional": (F.relu, False),
    "functional in place": (lambda x: F.relu(x, inplace=True), True),
    "functional in place, by position": (lambda x: F.relu(x, True), True),
    "functional underscore": (F.relu_, True),
    "torch": (torch.relu, False),
    "torch underscore": (torch.relu_, True),
    "method": (lambda x: x.relu(), False),
    "method in place": (lambda x: x.relu_(), True),
    "answer ignored": (_ignored, True),
    "aten": (torch.ops.aten.relu.default, False),
    "aten in place": (torch.ops.aten.relu_.default, True),
}


@pytest.mark.parametrize("name", RELUS)
def test_every_spelling_of_relu(name: str) -> None:
    function, in_place = RELUS[name]
    call = only(function)
    assert (call.op, call.kind, call.in_place) == ("relu", "rectifier", in_place)
    assert isinstance(call.arguments["input"], Tensor)
    assert call.address == ":relu" if "module" not in name else call.address.endswith(":relu")


SAME: dict[str, list[Callable[[Tensor], Any]]] = {
    "add": [
        lambda x: x + 2, lambda x: 2 + x, lambda x: x.add(2), lambda x: torch.add(x, 2), lambda x: x.add_(2),
        lambda x: torch.add(x, other=2), lambda x: torch.ops.aten.add.Tensor(x, 2),
    ],
    "mul": [lambda x: x * 2, lambda x: 2 * x, lambda x: x.mul_(2), lambda x: torch.multiply(x, 2)],
    "div": [lambda x: x / 2, lambda x: torch.true_divide(x, 2), lambda x: x.div_(2)],
    "sub": [lambda x: x - 2, lambda x: torch.subtract(x, 2), lambda x: x.sub_(2)],
    "hardtanh": [
        lambda x: F.hardtanh(x, 0.0, 6.0), nn.Hardtanh(0.0, 6.0), nn.ReLU6(), nn.ReLU6(inplace=True),
        lambda x: torch.ops.aten.hardtanh_.default(x, 0.0, 6.0),
    ],
    "leaky_relu": [nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2), lambda x: F.leaky_relu_(x, 0.2)],
    "clamp": [lambda x: x.clamp(0, 6), lambda x: torch.clip(x, 0, 6), lambda x: x.clamp_(min=0, max=6)],
    "sigmoid": [nn.Sigmoid(), torch.sigmoid, F.sigmoid, lambda x: x.sigmoid_(), torch.ops.aten.sigmoid.default],
    "silu": [nn.SiLU(), nn.SiLU(inplace=True), F.silu, torch.ops.aten.silu_.default],
    "flatten": [nn.Flatten(1), lambda x: x.flatten(1), lambda x: torch.flatten(x, start_dim=1)],
    "view": [
        lambda x: x.view(1, -1), lambda x: x.view((1, -1)), lambda x: x.view(torch.Size([1, -1])),
        lambda x: x.view(size=(1, -1)), lambda x: torch.ops.aten.view.default(x, [1, -1]),
    ],
    "reshape": [
        lambda x: x.reshape(1, -1), lambda x: torch.reshape(x, (1, -1)), lambda x: x.reshape(shape=(1, -1)),
        lambda x: torch.ops.aten.reshape.default(x, [1, -1]),
    ],
    "permute": [
        lambda x: x.permute(0, 2, 3, 1), lambda x: x.permute((0, 2, 3, 1)), lambda x: torch.permute(x, (0, 2, 3, 1)),
        lambda x: x.permute(dims=(0, 2, 3, 1)), lambda x: torch.ops.aten.permute.default(x, [0, 2, 3, 1]),
    ],
    "expand": [lambda x: x.expand(2, -1, -1, -1), lambda x: torch.ops.aten.expand.default(x, [2, -1, -1, -1])],
    "transpose": [
        lambda x: x.transpose(1, 2), lambda x: torch.transpose(x, 1, 2), lambda x: x.swapaxes(1, 2),
        lambda x: torch.swapdims(x, dim0=1, dim1=2), lambda x: torch.ops.aten.transpose.int(x, 1, 2),
    ],
    "mean": [
        lambda x: x.mean([2, 3], True), lambda x: torch.mean(x, dim=[2, 3], keepdim=True),
        lambda x: x.mean(axis=[2, 3], keepdims=True), lambda x: torch.ops.aten.mean.dim(x, [2, 3], True),  # type: ignore[call-overload]
    ],
    "split": [
        lambda x: x.split(2, 1), lambda x: torch.split(x, 2, dim=1),
        lambda x: torch.split(tensor=x, split_size_or_sections=2, dim=1),
        lambda x: torch.ops.aten.split.Tensor(x, 2, 1),
    ],
    "softmax": [nn.Softmax(1), lambda x: F.softmax(x, 1), lambda x: x.softmax(dim=1), lambda x: torch.ops.aten.softmax.int(x, 1)],
    "max_pool2d": [
        nn.MaxPool2d(3, 2, 1), lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: F.max_pool2d(x, kernel_size=3, stride=2, padding=1),
        lambda x: torch.max_pool2d(x, 3, 2, 1), lambda x: torch.ops.aten.max_pool2d.default(x, 3, 2, 1),
        lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True),
    ],
    "max": [lambda x: torch.max(x, x), lambda x: torch.max(x, other=x), lambda x: torch.ops.aten.max.other(x, x)],
    "min": [lambda x: x.min(x), lambda x: torch.min(x, other=x), lambda x: torch.ops.aten.min.other(x, x)],
    "matmul": [lambda x: x @ x, lambda x: x.matmul(x), lambda x: torch.matmul(x, other=x)],
    "cat": [
        lambda x: torch.cat([x, x], 1), lambda x: torch.concat((x, x), dim=1), lambda x: torch.cat(tensors=[x, x], axis=1),  # type: ignore[call-arg]
        lambda x: torch.ops.aten.cat.default([x, x], 1),
    ],
    "where": [
        lambda x: torch.where(x > 0.5, x, x), lambda x: x.where(x > 0.5, x),
        lambda x: torch.ops.aten.where.self(x > 0.5, x, x),
    ],
    "einsum": [
        lambda x: torch.einsum("nchw,nkhw->nck", x, x), lambda x: torch.einsum("nchw,nkhw->nck", [x, x]),
        lambda x: torch.ops.aten.einsum.default("nchw,nkhw->nck", [x, x]),
    ],
    "interpolate": [
        lambda x: F.interpolate(x, [9, 9], mode="bilinear", align_corners=False),
        nn.Upsample((9, 9), mode="bilinear", align_corners=False),
        lambda x: torch.ops.aten.upsample_bilinear2d.default(x, [9, 9], False),
    ],
    "pad": [lambda x: F.pad(x, [1, 1], value=0.0), lambda x: torch.ops.aten.constant_pad_nd.default(x, [1, 1], 0.0)],
}  # fmt: skip


ASIDE = ("inplace", "return_indices", "dtype", "_stacklevel")


def plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, tuple | list):
        parts = [plain(part) for part in value]
        # aten writes one number for each axis
        return parts[0] if len(parts) == 2 and parts[0] == parts[1] and isinstance(parts[0], int) else parts
    return value


@pytest.mark.parametrize("op", SAME)
def test_same_operation_same_arguments(op: str) -> None:
    bound = []
    for function in SAME[op]:
        call = listen(function)[-1]
        assert call.op == op
        given = {name: plain(value) for name, value in call.arguments.items()}
        bound.append({name: value for name, value in given.items() if name not in ASIDE})
    shared = set.intersection(*(set(each) for each in bound))
    named = {name for name, _ in ops._parameters(ops.VOCABULARY[op][1])[0] if name not in ("inplace", "_stacklevel")}
    assert {name for name in named if name in bound[0]} - shared <= {
        "return_indices",
        "dtype",
        "antialias",
        "recompute_scale_factor",
        "scale_factor",
    }
    for each in bound[1:]:
        for name in shared:
            assert each[name] == bound[0][name] or name == "scale_factor", (op, name)


def test_batch_norm_in_three_orders() -> None:
    weight, bias, mean, var = (torch.full((4,), float(i)) for i in range(1, 5))
    spellings: list[Callable[[Tensor], Any]] = [
        lambda x: F.batch_norm(x, mean, var, weight, bias, False, 0.2, 0.3),
        lambda x: torch.batch_norm(x, weight, bias, mean, var, False, 0.2, 0.3, False),
        lambda x: torch.ops.aten.batch_norm.default(x, weight, bias, mean, var, False, 0.2, 0.3, False),
    ]
    for function in spellings:
        given = only(function).arguments
        values = [given[name] for name in ("weight", "bias", "running_mean", "running_var")]
        assert [value[0].item() for value in values] == [1, 2, 3, 4]
        assert (given["training"], given["momentum"], given["eps"]) == (False, 0.2, 0.3)


def test_addmm_works_on_its_second_argument() -> None:
    bias, image, weight = torch.zeros(5), torch.rand(2, 3), torch.rand(3, 5)
    for function in (torch.addmm, torch.ops.aten.addmm.default):
        given = ops.spelling(function).bind((bias, image, weight), {})  # type: ignore[union-attr]
        assert given["bias"] is bias
        assert given["input"] is image
        assert given["mat2"] is weight


# Names and order of arguments, against torch's own signatures

#: parameters that say how an answer is to be written, not what it is
_ASIDE = {"out", "dtype", "out_dtype", "memory_format", "non_blocking", "copy", "cudnn_enable", "cudnn_enabled"}
#: signatures that torch's overrides give in part, or with a name of their own
_LOOSE = {
    "getitem", "setitem", "where", "permute", "einsum", "to", "max", "min", "mean", "sum", "var", "std", "clone",
    "addmm", "matmul", "multi_head_attention_forward", "scaled_dot_product_attention", "dropout", "alpha_dropout", "copy",
    "instance_norm", "max_pool2d",
}  # fmt: skip


def test_parameters_are_torchs() -> None:
    compared = 0
    for func, signature in get_testing_overrides().items():
        known = ops.spelling(func)
        if known is None or known.op in _LOOSE:
            continue
        theirs = [name for name in inspect.signature(signature).parameters if name not in _ASIDE]
        ours = [name for name, _ in known.parameters if name not in _ASIDE] + ([known.rest] if known.rest else [])
        for position, (their, our) in enumerate(zip(theirs, ours, strict=False)):
            allowed = {our, *ops._SYNONYMS.get(our, ())} | (
                {"tensor", "size"} if position in (0, len(ours) - 1) else set()
            )
            assert their in allowed, (known.op, func, theirs, ours)
        compared += 1
    assert compared > 150


#: what only aten's overloads have
_ATEN_ONLY = {
    "dtype", "out_dtype", "memory_format", "implicit", "generator", "copy", "non_blocking", "device", "path",
    "input_scale", "scale", "other", "cudnn_enabled", "layout", "pin_memory",
}  # fmt: skip


def test_parameters_are_atens() -> None:
    """Every overload that torch.export can leave in a graph binds to the vocabulary's names."""
    compared = 0
    for op, (_, text) in ops.VOCABULARY.items():
        named, rest = ops._parameters(text)
        ours = {name for name, _ in named} | {rest}
        for written in (op, op + "_"):
            packet = getattr(torch.ops.aten, written, None)
            for overload in packet.overloads() if packet is not None else ():
                func = getattr(packet, overload)
                kinds = {str(argument.type) for argument in func._schema.arguments}
                written_out = any(argument.is_out for argument in func._schema.arguments)
                if written_out or "sublist" in overload or "str" in overload or not kinds & {"Tensor", "List[Tensor]"}:
                    continue  # out=, or numbers and lists of scripts
                known = ops.spelling(func)
                assert isinstance(func, OpOverload)
                assert known is not None
                assert known.op == op
                assert known.in_place == (written != op)
                given = {name for name, _ in known.parameters} | {name for name, _ in known.fixed}
                assert given - ours <= _ATEN_ONLY, (str(func), given - ours)
                compared += 1
    assert compared > 200


def test_no_entry_is_odd() -> None:
    for alias, op in ops.ALIASES.items():
        assert op.rstrip("_") in ops.VOCABULARY or op in ops.COMPARISONS, alias
    used = {known.op for known in ops._SPELLINGS.values()}
    assert set(ops.VOCABULARY) - used <= {"slice"}  # aten's alone
    assert {kind for kind, _ in ops.VOCABULARY.values()} == set(ops.Kind.__args__)  # type: ignore[attr-defined]


# What is not in the vocabulary


def test_shapes_types_and_constants_pass() -> None:
    def asking(x: Tensor) -> Tensor:
        assert x.shape[0] == x.size(0) == len(x)
        assert x.dtype.is_floating_point
        assert x.argmax() >= 0
        return x + torch.zeros_like(x) + x.new_ones(x.shape) * (x > 0.5)

    assert [call.op for call in listen(asking)] == ["mul", "add", "add"] or len(listen(asking)) == 3


def test_an_unknown_map_is_refused() -> None:
    with pytest.raises(UnknownOperation, match="no rule for the operation cumsum, called in the model itself"):
        listen(lambda x: x.cumsum(1))


def test_attributes_of_a_map() -> None:
    assert only(lambda x: x.data).op == "detach"
    assert only(lambda x: x.mT).op == "t"


def test_what_a_lens_computes_itself_is_not_heard() -> None:
    class Adding(Listening):
        def entered(self, inputs: tuple[Any, ...]) -> None:
            inputs[0].add(1)

        def output(self, address: str, result: Any) -> Any:
            return result * 2

    with Adding(nn.ReLU()):
        assert nn.ReLU()(torch.ones(1)).item() == 1  # another network's modules pass by
    module = nn.Sequential(nn.ReLU())
    lens = Adding(module)
    with lens:
        assert module(torch.ones(1)).item() == 4  # doubled by the lens after each of the two modules
    assert [call.op for call in lens.calls] == ["relu"]


# Nets


TORCHVISION = (
    "resnet18", "vgg11_bn", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny",
    "googlenet", "inception_v3", "squeezenet1_1", "shufflenet_v2_x0_5", "regnet_y_400mf", "mnasnet0_5",
)  # fmt: skip
TIMM = (
    "resnet10t", "ecaresnet26t", "nfnet_l0", "skresnet18", "res2net50_14w_8s", "cspresnet50", "repvgg_a0",
    "ghostnet_050", "lcnet_050", "poolformer_s12", "hrnet_w18_small", "efficientnet_lite0",
)  # fmt: skip


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_families(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size = 96 if name == "inception_v3" else 64
    calls = listen(models.get_model(name, weights=None, **more), torch.rand(1, 3, size, size))
    assert {call.op for call in calls} >= {"conv2d"}
    _bound(calls)


@pytest.mark.parametrize("name", TIMM)
def test_timm_nets(name: str) -> None:
    timm = pytest.importorskip("timm")
    calls = listen(timm.create_model(name), torch.rand(1, 3, 64, 64))
    assert {call.op for call in calls} >= {"conv2d"}
    _bound(calls)


def _bound(calls: list[Call]) -> None:
    """Every argument that an operation cannot do without is there, under its name."""
    for call in calls:
        named, _ = ops._parameters(ops.VOCABULARY[call.op][1])
        for name, default in named:
            if default is ops._Required and name not in ("cudnn_enabled",):
                assert name in call.arguments, (call.op, name, call.func)


def described(calls: list[Call]) -> list[tuple[str, list[Any]]]:
    chosen = ("conv2d", "batch_norm", "relu", "add", "max_pool2d", "linear", "hardtanh", "cat")
    shapes = ("input", "weight", "other")
    return [
        (call.op, [plain(call.arguments[name]) for name in shapes if isinstance(call.arguments.get(name), Tensor)])
        for call in calls
        if call.op in chosen
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "inception"])
def test_an_exported_net_is_the_same_net(name: str) -> None:
    module = nets.FAMILIES[name]().eval()
    image = torch.rand(1, 3, nets.SIZE, nets.SIZE)
    exported = torch.export.export(module, (image,)).module()
    assert described(listen(exported, image)) == described(listen(module, image))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["vgg", "inception"])
def test_an_onnx_net_is_the_same_net(name: str, tmp_path: Path) -> None:
    onnx2torch = pytest.importorskip("onnx2torch")
    module = nets.FAMILIES[name]().eval()
    image = torch.rand(1, 3, nets.SIZE, nets.SIZE)
    torch.onnx.export(module, (image,), str(tmp_path / "net.onnx"), dynamo=False, opset_version=13)
    converted = onnx2torch.convert(str(tmp_path / "net.onnx"))
    calls = listen(converted, image)
    _bound(calls)
    wanted = [op for op, _ in described(listen(module, image))]
    assert [op for op, _ in described(calls)] == wanted


def test_addresses_name_the_module_and_the_call() -> None:
    net = Classifier(nets.Spelled("reused"), size=nets.SIZE, check=False)
    lens = Listening(net.module)
    net.logits(nets.photos(1), lambda: lens)
    addresses = [call.address for call in lens.calls]
    assert addresses[:3] == ["conv1:conv2d", "bn1:batch_norm", "relu:relu"]
    assert "relu:relu.2" in addresses
    assert [call.index for call in lens.calls] == list(range(len(addresses)))
    assert "seewhy" in sys.modules
