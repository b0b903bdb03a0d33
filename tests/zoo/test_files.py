"""The user's own files: a module of theirs with weights, ONNX, exported programs; each answers as the module itself."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from seewhy.errors import ModelError, SpecError
from seewhy.zoo import load, models, prepare

CODE = """
import torch
from torch import nn

def make(channels=3):
    body = [nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(24, 4))

def grey():
    return make(1)

class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.fc = nn.Linear(6 * 36, 4)

    def forward(self, x):
        return self.fc(self.conv(x).view(len(x), -1))

def nothing():
    return 3

def fails():
    raise KeyError("no data")
"""


def made() -> nn.Sequential:
    """The module of the code above, with running statistics of its own."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)
    )
    net(torch.rand(8, 3, 8, 8))
    return net.eval()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "my_net.py"
    path.write_text(CODE)
    return path


IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def same(found: Tensor, expected: Tensor | None) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def normalised(images: Tensor, mean: float = 0.5, std: float = 0.25) -> Tensor:
    return (images - mean) / std


def wrapped(state: dict[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("w.safetensors", save_file),
        ("w.pt", torch.save),
        ("w.pth", lambda state, path: torch.save(wrapped(state), path)),
        ("w.pt", lambda state, path: torch.save({"state_dict": wrapped(state), "epoch": 3, "best": 0.9}, path)),
        ("w.ckpt", lambda state, path: torch.save({"model": state, "optimizer": {"lr": 0.1}}, path)),
        ("w.safetensors", lambda state, path: save_file(wrapped(state, "_orig_mod."), path)),
        ("w.pt", lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False)),
    ],
)
def test_a_file_model_answers_as_the_module(code: Path, name: str, save: Callable[..., Any]) -> None:
    weights = code.parent / name
    save(made().state_dict(), weights)
    net = load(f"file:{code}:make@{weights},size=8,mean=0.5+0.5+0.5,std=0.25+0.25+0.25")
    same(net.logits(IMAGES), made()(normalised(IMAGES)))
    assert net.size == (8, 8)
    assert net.labels[0] == "class 0"


def test_a_model_knows_the_file_that_it_is_made_from(code: Path) -> None:
    weights = code.parent / "w.safetensors"
    save_file(made().state_dict(), weights)
    for spec in (f"file:{code}:make@{weights},size=8", f"file:{code}:make,size=8", f"file:{code}:make@none,size=8"):
        assert load(spec, check=False).code == hashlib.sha256(code.read_bytes()).hexdigest()
    export(code.parent / "net.pt2", made(), None)
    exported = load(f"export:{code.parent / 'net.pt2'}", check=False)
    assert exported.code == hashlib.sha256((code.parent / "net.pt2").read_bytes()).hexdigest()
    assert load("cifar10-resnet20,weights=none", check=False).code is None


def test_half_precision_weights_without_counters(code: Path) -> None:
    state = {
        key: value.half() if value.ndim > 1 else value
        for key, value in made().state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    save_file(state, code.parent / "w.safetensors")
    net = load(f"file:{code}:make@{code.parent / 'w.safetensors'},size=8")
    reference = made()
    reference.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    assert {parameter.dtype for parameter in net.module.parameters()} == {torch.float32}
    same(net.logits(IMAGES), reference(IMAGES))


def test_sidecar_and_what_counts_before_it(code: Path) -> None:
    weights = code.parent / "w.safetensors"
    save_file(made().state_dict(), weights)
    record = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "size": 8,
        "resize": 10,
        "interpolation": "lanczos",
        "labels": ["a", "b", "c", "d"],
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "trained": "by hand",
    }
    weights.with_suffix(".json").write_text(json.dumps(record))
    net = load(f"file:{code}:make@{weights}")
    same(net.logits(IMAGES), made()(normalised(IMAGES)))
    assert net.labels == ("a", "b", "c", "d")
    assert (net.preprocess.resize, net.preprocess.interpolation, net.notes) == (10, "lanczos", ())
    (code.parent / "names.txt").write_text("# from the paper\nw\nx\ny\nz\n\n")
    other = load(f"file:{code}:make@{weights},labels={code.parent / 'names.txt'},size=16,mean=0+0+0")
    assert other.labels == ("w", "x", "y", "z")
    assert (other.size, other.preprocess.resize, other.mean, other.std) == ((16, 16), 20, (0, 0, 0), (0.25,) * 3)
    assert load(f"file:{code}:make@{weights}", labels=["k", "l", "m", "n"]).labels == ("k", "l", "m", "n")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "expected a JSON object"),
        ('{"size": 8, "mean": [0.5]}', "expected 3 numbers for mean"),
        ('{"size": "big"}', "numbers for size"),
        ('{"size": 8, "labels": {"a": 1}}', "list of names"),
        ('{"size": 8, "fit": "stretch"}', "fit to be one of"),
        ('{"size": 8, "resize": -2}', "resize as a number of pixels"),
        ('{"size": 8, "sha256": "00"}', "SHA-256 differs"),
    ],
)
def test_bad_sidecars(code: Path, record: str, said: str) -> None:
    weights = code.parent / "w.safetensors"
    save_file(made().state_dict(), weights)
    weights.with_suffix(".json").write_text(record)
    with pytest.raises((ModelError, SpecError), match=said):
        load(f"file:{code}:make@{weights}")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["a", "b", "c", "d"]', "abcd"),
        ('{"1": "b", "0": "a", "2": "c", "3": "d"}', "abcd"),
        ('{"labels": ["d", "c", "b", "a"]}', "dcba"),
    ],
)
def test_label_files(code: Path, text: str, names: str) -> None:
    (code.parent / "names.json").write_text(text)
    net = load(f"file:{code}:make,size=8", labels=code.parent / "names.json")
    assert net.labels == tuple(names)


def test_random_weights_are_said_loudly_and_repeat(code: Path) -> None:
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)
    first = load(f"file:{code}:make,size=8,weights=none")
    second = load(f"file:{code}:make@none,size=8")
    assert torch.equal(torch.rand(2), expected)  # the caller's generator was left alone
    assert first.fingerprint == second.fingerprint
    for net in (first, second):
        assert net.notes[0].startswith("RANDOM WEIGHTS")
    assert any("normalisation" in note for note in first.notes)
    assert any("make() made" in note for note in load(f"file:{code}:make,size=8").notes)


def test_grey_models(code: Path) -> None:
    net = load(f"file:{code}:grey,size=8,grey=true")
    module = net.module[1]  # type: ignore[index]
    same(net.logits(IMAGES), module.eval()(IMAGES.mean(1, keepdim=True)))
    with pytest.raises(ModelError, match="grey=true"):
        load(f"file:{code}:grey,size=8")


def test_layout_is_changed_only_where_it_runs(code: Path) -> None:
    fast, viewing = load(f"file:{code}:make,size=8"), load(f"file:{code}:Viewing,size=8")
    assert fast.module[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index]
    assert viewing.module.conv.weight.is_contiguous()  # type: ignore[union-attr, operator]
    assert not prepare(viewing)
    expected = viewing.module.fc(viewing.module.conv(IMAGES).flatten(1))  # type: ignore[operator]
    same(viewing.logits(IMAGES), expected.detach())


def test_a_layout_that_changes_answers_is_taken_back() -> None:
    from seewhy.classifier import Classifier

    class Peeks(nn.Module):
        """Reads memory as if it were in rows: another answer in another layout, and no error."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            return y.as_strided((len(y), 4), (144, 36))

    net = Classifier(Peeks(), size=8)
    assert not prepare(net)
    assert net.module.conv.weight.is_contiguous()  # type: ignore[union-attr, operator]


# Weights that do not fit, or must not be read


def test_weights_that_do_not_fit_name_the_keys(code: Path) -> None:
    state = made().state_dict()
    del state["1.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["5.weight"] = torch.zeros(7, 24)
    path = code.parent / "w.pt"
    torch.save(state, path)
    with pytest.raises(ModelError) as caught:
        load(f"file:{code}:make@{path},size=8")
    for said in ("1 missing: 1.bias", "1 unexpected: extra.weight", "5.weight (7, 24) instead of (4, 24)", "w.pt"):
        assert said in str(caught.value)


class Marker:
    """A pickle of this writes a file when it is read: what a stranger's file could do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_that_needs_more_is_refused_unless_trusted(code: Path) -> None:
    path, touched = code.parent / "w.pt", code.parent / "touched"
    torch.save({"state_dict": made().state_dict(), "config": Marker(touched)}, path)
    with pytest.raises(ModelError, match=r"holds more than tensors.*--trust-pickle"):
        load(f"file:{code}:make@{path},size=8")
    assert not touched.exists()
    net = load(f"file:{code}:make@{path},size=8", trust_pickle=True)
    assert touched.exists()
    same(net.logits(IMAGES), made()(IMAGES))


def test_a_whole_pickled_module_is_refused_unless_trusted(code: Path) -> None:
    path = code.parent / "w.pt"
    torch.save(made(), path)
    with pytest.raises(ModelError, match=r"save model\.state_dict"):
        load(f"file:{code}:make@{path},size=8")
    net = load(f"file:{code}:make@{path},size=8,trust_pickle=true")
    same(net.logits(IMAGES), made()(IMAGES))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"not weights at all", b"\x80\x02}q\x00.", b"PK\x03\x04broken", pickle.dumps([1, 2])]
)
def test_broken_weights_are_one_sentence(code: Path, name: str, content: bytes) -> None:
    path = code.parent / name
    path.write_bytes(content)
    with pytest.raises(ModelError, match=name):
        load(f"file:{code}:make@{path},size=8")


def test_half_a_file_of_weights(code: Path) -> None:
    for name, save in (("w.pt", torch.save), ("w.safetensors", save_file)):
        path = code.parent / name
        save(made().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-700])
        with pytest.raises(ModelError, match="read"):
            load(f"file:{code}:make@{path},size=8")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("file:{dir}/my_nat.py:make,size=8", r'does not exist; did you mean "my_net.py"'),
        ("file:{dir}:make,size=8", "is a folder"),
        ("file:{dir}/my_net.py:mke,size=8", 'no function "mke"; did you mean "make"'),
        ("file:{dir}/my_net.py:qqqqq,size=8", "it has: make, grey, Viewing"),
        ("file:{dir}/my_net.py:nothing,size=8", "to return a torch.nn.Module, got int"),
        ("file:{dir}/my_net.py:fails,size=8", "fails: KeyError"),
        ("file:{dir}/my_net.py:make", r"size of its input; give it, as in .*,size=224"),
        ("file:{dir}/my_net.py,size=8", "expected file:PATH.py:FUNCTION@WEIGHTS"),
        ("file:{dir}/my_net.py:make@{dir}/none.pt,size=8", "none.pt, which does not exist"),
        ("file:{dir}/my_net.py:make,siz=8", 'no option "siz"; did you mean "size"'),
        ("file:{dir}/my_net.py:make,size=8,mean=0.5", "three numbers joined by"),
        ("file:{dir}/my_net.py:make,size=8,mean=a+b+c", "expected a number"),
        ("file:{dir}/my_net.py:make,size=0", "height.width"),
        ("file:{dir}/my_net.py:make,size=8,fit=stretch", "fit to be one of"),
        ("file:{dir}/my_net.py:make,size=1", "too small"),
        ("file:{dir}/my_net.py:make@x.pt,size=8,weights=y.pt", "weights once"),
        ("efficientnet-lite9", 'no model "efficientnet-lite9"; did you mean "efficientnet-lite'),
        ("torchvison:resnet50", 'did you mean "torchvision"'),
        ("zzzz", "there are: efficientnet-lite0"),
        ("onnx:", r"write it as in onnx:PATH\.onnx"),
        ("file", "write it as in file:"),
    ],
)
def test_specs_that_cannot_be_loaded(code: Path, spec: str, said: str) -> None:
    with pytest.raises((ModelError, SpecError), match=said):
        load(spec.format(dir=code.parent))


def test_code_that_does_not_compile(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def make(:\n")
    with pytest.raises(ModelError, match="fails: SyntaxError"):
        load(f"file:{tmp_path / 'bad.py'}:make,size=8")


def test_a_path_with_commas(tmp_path: Path) -> None:
    folder = tmp_path / "a,b c"
    folder.mkdir()
    (folder / "net.py").write_text(CODE)
    assert load(f"file:{folder / 'net.py'}:make,size=8").classes == 4


def test_models_lists_what_load_understands() -> None:
    listed = models()
    assert len({each.spec for each in listed}) == len(listed) == 10
    assert {each.spec: each.installed for each in listed}["efficientnet-lite0"]


# Exported programs


def export(path: Path, module: nn.Module, batch: int | None) -> None:
    shapes = ({0: torch.export.Dim("batch")},) if batch is None else None
    torch.export.save(torch.export.export(module, (torch.rand(batch or 2, 3, 8, 8),), dynamic_shapes=shapes), path)


def test_an_exported_program_answers_as_the_module(tmp_path: Path) -> None:
    export(tmp_path / "net.pt2", made(), None)
    record = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "labels": ["a", "b", "c", "d"]}
    (tmp_path / "net.json").write_text(json.dumps(record))
    net = load(f"export:{tmp_path / 'net.pt2'}")
    same(net.logits(IMAGES), made()(normalised(IMAGES)))
    assert (net.size, net.notes, net.labels) == ((8, 8), (), tuple("abcd"))


def test_a_program_for_single_images_runs_one_by_one_and_says_so(tmp_path: Path) -> None:
    export(tmp_path / "net.pt2", made(), 1)
    net = load(f"export:{tmp_path / 'net.pt2'}")
    assert any("one image at a time" in note for note in net.notes)
    same(net.predict(IMAGES), made()(IMAGES))
    _, gradients = net.gradient(IMAGES, lambda logits, _: logits[:, 0])
    leaf = IMAGES.clone().requires_grad_()
    made()(leaf)[:, 0].sum().backward()
    same(gradients, leaf.grad)
    with pytest.raises(ModelError, match="set the engine's batch to 1"):
        net.logits(IMAGES)


def test_programs_that_hold_pickles_are_refused(tmp_path: Path) -> None:
    export(tmp_path / "net.pt2", made(), None)
    touched = tmp_path / "touched"
    with zipfile.ZipFile(tmp_path / "net.pt2") as source, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as target:
        for member in source.namelist():
            content = source.read(member)
            if member.endswith("sample_inputs/model.pt"):
                torch.save(((Marker(touched),), {}), tmp_path / "inputs")
                content = (tmp_path / "inputs").read_bytes()
            target.writestr(member, content)
    with pytest.raises(ModelError, match=r"more than a graph and tensors \(data/sample_inputs"):
        load(f"export:{tmp_path / 'bad.pt2'}")
    assert not touched.exists()


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x05\x06" + bytes(18)])
def test_broken_programs(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.pt2").write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.pt2"):
        load(f"export:{tmp_path / 'net.pt2'}")


# ONNX


class HeldToOne(nn.Module):
    """Writes its batch size into the graph, as many exports do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = made()

    def forward(self, x: Tensor) -> Any:
        return self.net[5](self.net[:4](x).reshape(1, 24))


def to_onnx(path: Path, module: nn.Module, images: Tensor, free: bool) -> None:
    pytest.importorskip("onnx2torch")
    words: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"]}
    if free:
        words["dynamic_axes"] = {"image": {0: "n"}, "logits": {0: "n"}}
    torch.onnx.export(module, (images,), str(path), dynamo=False, opset_version=13, **words)


@pytest.mark.filterwarnings("ignore")
def test_onnx_answers_as_the_module(tmp_path: Path) -> None:
    to_onnx(tmp_path / "net.onnx", made(), IMAGES[:1], free=True)
    net = load(f"onnx:{tmp_path / 'net.onnx'},mean=0.5+0.5+0.5,std=0.25+0.25+0.25")
    assert net.code == hashlib.sha256((tmp_path / "net.onnx").read_bytes()).hexdigest()
    same(net.logits(IMAGES), made()(normalised(IMAGES)))
    assert net.size == (8, 8)
    assert net.notes == ("no names are known for this model's classes; give labels=FILE",)


@pytest.mark.filterwarnings("ignore")
def test_onnx_for_single_images(tmp_path: Path) -> None:
    to_onnx(tmp_path / "net.onnx", HeldToOne().eval(), IMAGES[:1], free=False)
    net = load(f"onnx:{tmp_path / 'net.onnx'}")
    assert any("one image at a time" in note for note in net.notes)
    same(net.predict(IMAGES), made()(IMAGES))


@pytest.mark.filterwarnings("ignore")
def test_onnx_with_colours_last(tmp_path: Path) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = made()

        def forward(self, x: Tensor) -> Any:
            return self.net(x.permute(0, 3, 1, 2))

    to_onnx(tmp_path / "net.onnx", Last().eval(), IMAGES[:1].permute(0, 2, 3, 1), free=True)
    net = load(f"onnx:{tmp_path / 'net.onnx'}")
    same(net.logits(IMAGES), made()(IMAGES))
    assert any("colours last" in note for note in net.notes)


def test_broken_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx2torch")
    for content in (b"", b"no graph", bytes(100)):
        (tmp_path / "net.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=r"net\.onnx is no valid ONNX file"):
            load(f"onnx:{tmp_path / 'net.onnx'}")
    with pytest.raises(ModelError, match="does not exist"):
        load(f"onnx:{tmp_path / 'not.onnx'}")
