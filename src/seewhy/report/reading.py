"""A run as the report reads it: each row once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from seewhy.method import registry
from seewhy.report import words
from seewhy.report.parts import took
from seewhy.run.plan import MOST
from seewhy.run.reading import right
from seewhy.run.store import MODEL, SET, STAND_IN, ImageRow, Result, Run, Timing
from seewhy.run.unfinished import unfinished


class Reading:
    """A run's images, its rows by image, and its model's name and identity.

    Rows of no single image stand under `MODEL`, `SET` and `STAND_IN`. `anchors`: where in the page an image's own section is,
    for the first that could be read, as many as an audit takes where nothing else is said; all of them stand in the table.
    `unfinished`: what the plan asks for and has no row yet.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.known = registry()
        self.images = run.images()
        self.unfinished = unfinished(run)
        self.rows = {
            image: run.results(image) for image in (*(image.id for image in self.images), MODEL, SET, STAND_IN)
        }
        self.identity: dict[str, Any] = next(
            (row.record for row in self.rows[MODEL] if row.step == "identity" and row.ok), {}
        )
        named = self.identity.get("name") or run.plan.get("asked", {}).get("model") or "the model"
        self.model = words.model(str(named))
        full = [image.id for image in self.images if image.ok][:MOST]
        self.anchors = {
            image.id: f"photo-{number}"
            for number, image in enumerate(self.images, 1)
            if image.id in full and not self.trouble(image)
        }

    def of(self, image: str) -> tuple[Result, ...]:
        """The rows of an image, failed ones too."""
        return self.rows[image]

    def wrong(self, image: str) -> bool:
        """Whether an image is misclassified before any attack, which then counts nowhere."""
        return any(row.ok and row.step == "predict" and right(row.record) is False for row in self.of(image))

    @property
    def sets(self) -> list[dict[str, Any]]:
        """The sets that were looked at as a whole, as the plan has them."""
        return list(self.run.plan.get("sets", []))

    def cost(self, rows: Sequence[Result]) -> tuple[str, ...]:
        """Passes and time of some rows together, as facts."""
        forward, backward = (sum(row.record["cost"][kind] for row in rows) for kind in ("forward", "backward"))
        timings = [timing for row in rows if (timing := self.run.timing(row.image, row.step)) is not None]
        seconds = Timing(sum(timing.seconds for timing in timings))
        return (f"cost: {words.passes(forward, backward)}", *(took(seconds) if timings else ()))

    def named(self, image: str) -> str:
        """What an image's id stands for, in words."""
        others = {MODEL: "the model", SET: "all images", STAND_IN: "the other model"}
        return ({image.id: image.name for image in self.images} | others)[image]

    def trouble(self, image: ImageRow) -> str:
        """Why nothing can be shown of an image, empty where it can."""
        if not image.ok:
            return image.error or "it could not be read"
        return "" if self.seen(image) else f"the run has lost its picture {image.record['pictures']['seen']}"

    def seen(self, image: ImageRow) -> Image.Image | None:
        """An image as the model saw it, None where that picture is gone."""
        return self.opened(image.record["pictures"]["seen"])

    def opened(self, name: str) -> Image.Image | None:
        """A picture of the run in RGB, with transparency where it has some; None where it is gone."""
        if not name:
            return None
        try:
            with Image.open(self.run.picture(name)) as picture:
                return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        except OSError:
            return None
