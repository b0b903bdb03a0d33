"""`onnx:PATH`: a classifier in an ONNX file, through onnx2torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from seewhy.data.images import Preprocess
from seewhy.errors import ModelError
from seewhy.zoo.source import Found, Options, described, existing, for_batches, need


class ChannelsAtEnd(nn.Module):
    """In front of a graph that takes (N, H, W, 3), as exports from TensorFlow do."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module(x.permute(0, 2, 3, 1))


def load(name: str, options: Options) -> Found:
    """The input's size comes from the graph; the rest from options or the sidecar PATH.json."""
    path = existing(Path(name), "an ONNX file")
    onnx = need("onnx", "onnx", f"onnx:{name}")
    converter = need("onnx2torch", "onnx", f"onnx:{name}")
    if options.weights:
        raise ModelError(f"an ONNX file holds its own weights: leave out weights={options.weights}")
    try:
        graph = onnx.load(str(path))
        onnx.checker.check_model(str(path))
    except Exception as error:  # protobuf, the checker and missing side files each raise their own
        raise ModelError(f"{path} is no valid ONNX file: {str(error).strip().splitlines()[0][:200]}") from error
    shape = _input_shape(graph, path)
    try:
        module: nn.Module = converter.convert(graph)
    except NotImplementedError as error:
        raise ModelError(
            f"onnx2torch cannot convert {path}: {str(error)[:200]}; export the model with torch.export "
            "(export:PATH.pt2) or load it from its own code (file:PATH.py:FUNCTION@WEIGHTS)"
        ) from error
    except Exception as error:  # a converter for an unusual graph
        raise ModelError(f"onnx2torch cannot convert {path}: {type(error).__name__}: {str(error)[:200]}") from error
    notes: tuple[str, ...] = ()
    if shape[1] not in (1, 3, None) and shape[3] in (1, 3):
        module, shape = ChannelsAtEnd(module), (shape[0], shape[3], shape[1], shape[2])
        notes = ("the graph takes images with the colours last; they are given to it so",)
    found = described(module, path)
    preprocess = found.preprocess
    if preprocess is None and shape[2] and shape[3]:
        preprocess = Preprocess((shape[2], shape[3]))
    size = options.side or (preprocess.size if preprocess else None)
    if size is not None and shape[1] != 1:
        module, single = for_batches(module, size)
        notes += single
    return Found(module, found.mean, found.std, preprocess, found.labels, found.probabilities, notes, file=path)


def _input_shape(graph: Any, path: Path) -> tuple[int | None, ...]:
    weights = {each.name for each in graph.graph.initializer}
    inputs = [each for each in graph.graph.input if each.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise ModelError(f"expected one input, an image, in {path}, got {len(inputs)}: {names}")
    dims = inputs[0].type.tensor_type.shape.dim
    if len(dims) != 4:
        raise ModelError(f"expected images (N, 3, H, W) as the input of {path}, got {len(dims)} dimensions")
    if inputs[0].type.tensor_type.elem_type != 1:
        raise ModelError(f"expected float32 images as the input of {path}, got another type of number")
    return tuple(dim.dim_value or None for dim in dims)
