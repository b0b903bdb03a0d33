"""CIFAR-10: is `cifar10-resnet20` better than people? The votes of CIFAR-10H on the 10,000 test images.

    seewhy data get cifar10                # or bring your own copy
    python recipes/people_cifar10.py --data cifar10 --votes cifar10h-counts.npy --out build/people-cifar10

The votes are those of github.com/jcpeterson/cifar-10h (CC BY-NC-SA 4.0): the counts, or the raw table, which tells people
apart. Stop it at any moment and start it again with the same words: it goes on where it was. It writes the audit's report
into the folder, and the tables into docs/people-cifar10.md (`--page`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seewhy.machine import keep_memory, short_spin

short_spin()

import people_tables as tables
from seewhy import data, zoo
from seewhy.engine import Engine
from seewhy.report.html import write
from seewhy.run import Asked, audit

WHO = (
    "2,571 workers of Amazon Mechanical Turk, about 51 for each image, with checks of attention (Peterson et al. 2019)"
)
TRUTH = "CIFAR-10's labels, made by students and checked by the data set's authors; a few are known to be wrong"
METHODS = ("grad-cam", "lrp", "fgsm")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--data", default="cifar10", help="CIFAR-10: an archive or folder, or cifar10 for the fetched one"
    )
    options.add_argument("--votes", type=Path, required=True, help="CIFAR-10H's counts (.npy) or raw table (.csv)")
    options.add_argument("--model", default="cifar10-resnet20")
    options.add_argument("--out", type=Path, default=Path("build/people-cifar10"))
    options.add_argument("--photographs", type=int, default=4, help="that are explained and attacked one by one")
    options.add_argument("--page", type=Path, default=Path(__file__).parents[1] / "docs" / "people-cifar10.md")
    given = options.parse_args()
    keep_memory()
    net = zoo.load(given.model, engine=Engine())
    images = data.load(given.data, "test") if given.data != "cifar10" else data.load("cifar10")
    asked = Asked(f"cifar10h:{given.votes}", who=WHO, truth=TRUTH, whole=True)
    with audit(
        net,
        [images],
        given.out,
        spec=given.model,
        methods=METHODS,
        budget=None,
        limit=given.photographs,
        people=asked,
        progress=lambda done, total, what: print(f"\r{done / total:4.0%} {what:60.60}", end="", flush=True),
    ) as run:
        print(f"\nreport: {write(run)}")
        parts = {**tables.agreed(run), "worse": tables.worse(run)}
        tables.written(given.page, parts, "python recipes/people_cifar10.py --data cifar10 --votes cifar10h-counts.npy")
        print(f"tables: {given.page}")


if __name__ == "__main__":
    main()
