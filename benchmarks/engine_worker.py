"""One process of the engine's benchmark: forward passes of a batch of 16, set up in one of three ways.

python -m benchmarks.engine_worker NET SIDE OUTPUT
"""

from __future__ import annotations

import json
import statistics
import sys
import time

SIZE, PASSES = 16, 5


def main(name: str, side: str, output: str) -> None:
    if side != "plain":
        from seewhy.machine import keep_memory, short_spin

        short_spin()
        keep_memory()
    import torch

    from benchmarks.nets import pixels, plain

    module, images = plain(name), pixels(SIZE)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    if side == "plain":
        shift, scale = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)

        def run() -> torch.Tensor:
            with torch.no_grad():
                answer: torch.Tensor = module((images - shift) / scale)
                return answer
    else:
        from seewhy.classifier import Classifier
        from seewhy.engine import Engine
        from seewhy.zoo import prepare

        engine = Engine(precision="bf16" if side == "bf16" else "float32", batch=SIZE)
        net = Classifier(module, mean=mean, std=std, size=224, engine=engine, check=False)
        prepare(net)

        def run() -> torch.Tensor:
            with net.engine.half():
                return net.predict(images)

    for _ in range(2):
        logits = run()
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    torch.save(logits.float(), output)
    sys.stdout.write(json.dumps(statistics.median(seconds) / SIZE))


if __name__ == "__main__":
    main(*sys.argv[1:])
