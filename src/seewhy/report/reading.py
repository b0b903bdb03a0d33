"""A run as the report reads it: each row once."""

from __future__ import annotations

from typing import Any

from PIL import Image

from seewhy.method import registry
from seewhy.run.store import MODEL, ImageRow, Result, Run

#: photographs that get a section of their own; all of them stand in the table
FULL = 12


class Reading:
    """A run's images, its rows by image (`MODEL` for those of the model), and its model's name and identity.

    `anchors`: where in the page an image's own section is, for the first `FULL` that could be read.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.known = registry()
        self.images = run.images()
        self.rows = {image: run.results(image) for image in (*(image.id for image in self.images), MODEL)}
        self.identity: dict[str, Any] = next(
            (row.record for row in self.rows[MODEL] if row.step == "identity" and row.ok), {}
        )
        named = self.identity.get("name") or run.plan.get("asked", {}).get("model") or "the model"
        self.model = str(named)
        full = [image.id for image in self.images if image.ok][:FULL]
        self.anchors = {
            image.id: f"photo-{number}"
            for number, image in enumerate(self.images, 1)
            if image.id in full and not self.trouble(image)
        }

    def of(self, image: str) -> tuple[Result, ...]:
        """The rows of an image, failed ones too."""
        return self.rows[image]

    def named(self, image: str) -> str:
        """What an image's id stands for, in words."""
        return {image.id: image.name for image in self.images}.get(image, "the model")

    def trouble(self, image: ImageRow) -> str:
        """Why nothing can be shown of an image, empty where it can."""
        if not image.ok:
            return image.error or "it could not be read"
        return "" if self.seen(image) else f"the run has lost its picture {image.record['pictures']['seen']}"

    def seen(self, image: ImageRow) -> Image.Image | None:
        """An image as the model saw it, None where that picture is gone."""
        return self.opened(image.record["pictures"]["seen"])

    def opened(self, name: str) -> Image.Image | None:
        """A picture of the run in RGB, None where it is gone."""
        if not name:
            return None
        try:
            with Image.open(self.run.picture(name)) as picture:
                return picture.convert("RGB")
        except OSError:
            return None
