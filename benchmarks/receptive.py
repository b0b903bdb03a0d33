"""Receptive fields beside what autograd finds: the bounding box of the pixels with a gradient, on nets of five families."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.lens.lens import Lens
from seewhy.lens.ops import Call
from seewhy.lens.receptive import Field, receptive_fields

Box = tuple[int, int, int, int]

#: torchvision's nets, and what they are to be made with
NETS: dict[str, dict[str, Any]] = {
    "resnet50": {},
    "vgg16": {},
    "densenet121": {},
    "googlenet": {"aux_logits": False, "init_weights": False},
    "mobilenet_v2": {},
}

#: pixels of the images that windows are compared on, which deep windows reach past; and of those that are timed
SIDE, TIMED = 96, 224

#: layers of a net that are compared, spread over its depth, and turns of the clock
LAYERS, TURNS = 40, 5


class Heard(Lens):
    """Runs a net so that whatever a unit could depend on has a gradient, and keeps every output.

    Rectifiers are the identity, maxima are sums and gates double, so that no path is closed by luck.
    """

    def __init__(self, module: nn.Module, gates: bool = True) -> None:
        super().__init__(module)
        self.kept: dict[str, Tensor] = {}
        self.gates = gates

    def operation(self, call: Call) -> Any:
        given = call.arguments
        result: Any
        if call.kind == "rectifier" and call.op not in ("maximum", "minimum"):
            source = given["input"]
            result = source.mul_(1) if call.in_place else source * 1
        elif call.op in ("sigmoid", "hardsigmoid"):
            result = given["input"] * 2 if self.gates else torch.ones_like(given["input"])
        elif call.op == "max_pool2d":
            size, stride = _pair(given["kernel_size"]), _pair(given["stride"] or given["kernel_size"])
            pads, apart = _pair(given["padding"]), _pair(given["dilation"])
            ones = torch.ones(1, 1, *size, dtype=torch.float64).expand(given["input"].shape[1], -1, -1, -1)
            wide = F.pad(given["input"], (pads[1], pads[1] + stride[1], pads[0], pads[0] + stride[0]))
            summed = F.conv2d(wide, ones, None, stride, 0, apart, given["input"].shape[1])
            shape = call.run().shape
            result = summed[:, :, : shape[2], : shape[3]]
        else:
            result = call.run()
        if isinstance(result, Tensor):
            self.kept[call.address] = result.clone()
        return result

    def output(self, address: str, result: Any) -> Any:
        if isinstance(result, Tensor):
            self.kept[address] = result.clone()
        return result


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def positive(module: nn.Module) -> nn.Module:
    """A copy in float64 with positive weights, whose sums cannot cancel."""
    made = copy.deepcopy(module).double().eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in made.state_dict().values():
            if tensor.is_floating_point():
                values = torch.rand(tensor.shape, generator=draw, dtype=torch.float64)
                tensor.copy_((0.5 + values) / max(1, tensor[0].numel() if tensor.ndim > 1 else 1))
    return made


def heard(module: nn.Module, size: int, gates: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
    """An image and, for every address, an output whose gradient reaches all that it could depend on."""
    draw = torch.Generator().manual_seed(1)
    image = (1 + torch.rand((1, 3, size, size + 3), generator=draw, dtype=torch.float64)).requires_grad_()
    made = positive(module)
    lens = Heard(made, gates)
    with lens:
        made(image)
    return image, lens.kept


def box(image: Tensor, unit: Tensor) -> Box:
    """The bounding box of the pixels with a gradient."""
    if not unit.requires_grad:
        return 0, 0, 0, 0
    uneven = torch.linspace(1, 2, unit.numel(), dtype=torch.float64).view(unit.shape)  # a normalised sum is constant
    (gradient,) = torch.autograd.grad((uneven * unit).sum(), image, retain_graph=True)
    where = gradient[0].abs().sum(0) > 0
    rows, columns = where.any(1).nonzero().flatten(), where.any(0).nonzero().flatten()
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def fields(module: nn.Module, size: int) -> dict[str, Field]:
    """The lens's own, on images that are not square."""
    return receptive_fields(Classifier(module, size=(size, size + 3), check=False))


def windows(
    module: nn.Module, size: int, *, local: bool = False, only: Collection[str] = ()
) -> Iterator[tuple[str, tuple[int, int], Box, Box]]:
    """(address, place, the lens's window, autograd's) for every map of a net (or only some), at corners, borders and middle."""
    found = {address: field for address, field in fields(module, size).items() if not only or address in only}
    image, kept = heard(module, size, gates=not local)
    for address, field in found.items():
        output = kept[address]
        if tuple(output.shape) != field.shape:
            raise ValueError(f"{address} has the shape {tuple(output.shape)}; the lens says {field.shape}")
        if output.ndim != 4:
            if len(field.rows.start) == len(field.columns.start) == 1:
                yield address, (0, 0), field.window(0, 0, local=local), box(image, output)
            continue
        channels_last = len(field.rows.start) == field.shape[1] != field.shape[2]
        maps = output.permute(0, 3, 1, 2) if channels_last else output
        height, width = maps.shape[2:]
        for y in sorted({0, 1 % height, height // 2, height - 1}):
            for x in sorted({0, width // 2, width - 1}):
                yield address, (y, x), field.window(y, x, local=local), box(image, maps[:, :, y, x])


def spread(found: dict[str, Field], count: int) -> tuple[str, ...]:
    """So many addresses of maps, evenly from the first to the last."""
    maps = [each for each, field in found.items() if len(field.shape) == 4 and field.shape[2] * field.shape[3] > 1]
    places = torch.linspace(0, len(maps) - 1, min(count, len(maps))).round().long().tolist()
    return tuple(maps[place] for place in places)


def receptive() -> Iterator[list[str]]:
    """Which windows are those of the gradient, and how long all of a net's take."""
    from benchmarks.measure import Row, table
    from benchmarks.nets import plain

    rows: list[Row] = []
    for name, words in NETS.items():
        module = plain(name, **words)
        chosen = spread(fields(module, SIDE), LAYERS)
        units = [found == expected for _, _, found, expected in windows(module, SIDE, only=chosen)]
        net = Classifier(module, size=TIMED, check=False)
        seconds = []
        for _ in range(1 + TURNS):
            started = time.perf_counter()
            every = receptive_fields(net)
            seconds.append(time.perf_counter() - started)
        equal = "**yes**" if all(units) else f"**no: {units.count(False)} are not**"
        milliseconds = 1000 * statistics.median(seconds[1:])
        rows.append((name, f"{len(chosen)} of {len(every)}", str(len(units)), equal, f"{milliseconds:.0f} ms"))
        yield [
            "## Receptive fields beside autograd",
            "",
            f"A unit's window, exact to the pixel, against the box around the pixels with a gradient, on images of {SIDE} × "
            f"{SIDE + 3}; rectifiers open and weights positive, so that no path is closed by luck. Layers (operations and "
            "modules) from the first to the last, of each the corners, borders and middle of its map. The time is that of the "
            f"windows of all units of all layers, at {TIMED} × {TIMED}.",
            "",
            *table(("net", "layers compared", "units compared", "equal", "all layers"), rows),
        ]
