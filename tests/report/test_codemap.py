"""The map of codes as a reader, a screen reader and a browser get it."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import queue
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image

from report.test_html import LOADING, Page
from seewhy.engine import Cost
from seewhy.errors import InputError, RunError
from seewhy.look import MappedCodes
from seewhy.report import maps
from seewhy.report.codemap import fragment, page, reading, table, write

HOSTILE = '</script><script>alert("cat")</script>&amp;'


def made(count: int = 300, classes: int = 3, seed: int = 0, thumbnails: int = 32) -> MappedCodes:
    """A map as it could be, with names that want to break out of it."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=draw)
    angle = labels * 2 * torch.pi / classes
    centre = 20 * torch.stack([angle.cos(), angle.sin()], 1)
    predictions = torch.where(
        torch.rand(count, generator=draw) < 0.9, labels, torch.randint(0, classes, (count,), generator=draw)
    )
    names = tuple(HOSTILE if c == 1 else f"class {c}" for c in range(classes))
    side = (3, thumbnails, thumbnails)
    right = (labels == predictions).long()
    return MappedCodes(
        method="map",
        model="<b>net</b>",
        fingerprint="0",
        layer="pool",
        layout="tsne",
        classes=names,
        outputs=names,
        comparable=True,
        coordinates=centre + 4 * torch.randn((count, 2), generator=draw),
        labels=labels,
        predictions=predictions,
        confidence=torch.rand(count, generator=draw),
        indices=torch.arange(count),
        names=tuple(HOSTILE if i == 7 else f"image {i}" for i in range(count)),
        thumbnails=torch.randint(0, 256, (count if thumbnails else 0, *side), generator=draw, dtype=torch.uint8),
        reduced=torch.zeros(count, 2),
        mean=torch.zeros(2, dtype=torch.float64),
        directions=torch.eye(2, dtype=torch.float64),
        right_map=right,
        right_codes=torch.ones(count, dtype=torch.int64),
        nearest=torch.zeros(count),
        k=10,
        perplexity=30.0,
        chance=1 / classes,
        trustworthiness=0.97,
        kept=0.4,
        divergence=1.2,
        failed=(),
        cost=Cost(),
        notes=("a note",),
    )


def data(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" data-map>(.*?)</script>', text, re.DOTALL)
    assert found
    held: dict[str, Any] = json.loads(found[1])
    return held


def test_it_loads_nothing_and_says_everything() -> None:
    found = made()
    text = page(found)
    read = Page(text)
    assert not read.open
    for tag, attributes in read.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in LOADING & set(attributes):
            assert attributes[name].startswith(("data:", "#")), attributes[name]
    assert not re.search(r"\b(?:https?:|fetch\(|import\(|XMLHttpRequest|@import|url\()", text)
    assert "default-src 'none'" in text
    assert (
        'alert("cat")' not in re.sub(r"\\u003c|&lt;", "", text.replace("\\u003c/script", ""))
        or "<script>alert" not in text
    )
    held = data(text)
    assert held["names"][7] == HOSTILE
    assert held["classes"]["1"] == HOSTILE
    places = np.frombuffer(base64.b64decode(held["places"]), "<u2").reshape(-1, 2)
    assert np.corrcoef(places[:, 0], found.coordinates[:, 0])[0, 1] > 0.9999
    assert np.corrcoef(places[:, 1], found.coordinates[:, 1])[0, 1] > 0.9999
    for key, dtype, wanted in (("labels", "<i4", found.labels), ("wrong", "<i1", found.wrong)):
        assert np.frombuffer(base64.b64decode(held[key]), dtype).tolist() == wanted.tolist()
    kinds = held["kinds"]
    assert list(kinds) == ["class", "prediction", "error"]
    assert np.frombuffer(base64.b64decode(kinds["class"]["of"]), "u1").tolist() == found.labels.tolist()
    canvas = read.all("canvas")[0]
    assert canvas["tabindex"] == "0"
    assert canvas["aria-label"] == "Map of 300 images"
    assert set(canvas["aria-describedby"].split()) <= {a["id"] for _, a in read.elements if "id" in a}
    assert [box["aria-label"] for box in read.all("button") if "aria-label" in box] == ["Zoom in", "Zoom out"]
    for sentence in reading(found):
        assert " ".join(sentence.split()) in read.text
    assert "a note" in read.text
    assert len(read.all("tr")) == 1 + len(table(found))


def test_thumbnails_keep_to_their_budget_and_are_the_images() -> None:
    found = made(700)
    text = str(fragment(found, budget=400_000))
    held = data(text)
    assert 0 < sum(map(len, held["atlases"])) <= 400_000
    slots = np.frombuffer(base64.b64decode(held["slots"]), "<i4")
    shown = sorted(slots[slots >= 0].tolist())
    assert shown == list(range(len(shown)))
    assert 0 < len(shown) < 700
    assert f"{len(shown)} of 700 images, spread over the map, have a thumbnail here" in text
    assert "All 700 images have a thumbnail here." in str(fragment(found, budget=10**8))
    assert data(str(fragment(found, budget=0)))["atlases"] == []
    smooth = dataclasses.replace(
        found, thumbnails=torch.arange(700)[:, None, None, None].expand(-1, 3, 32, 32).div(3).byte()
    )
    held = data(str(fragment(smooth, budget=10**8)))
    pictures = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in held["atlases"]]
    slots = np.frombuffer(base64.b64decode(held["slots"]), "<i4")
    for point in (0, 123, 699):
        sheet, place = divmod(int(slots[point]), held["each"])
        left, top = place % held["columns"] * 32, place // held["columns"] * 32
        tile = np.asarray(pictures[sheet].convert("RGB").crop((left, top, left + 32, top + 32)))
        assert abs(float(tile.mean()) - point // 3 % 256) < 6
    bare = made(20, thumbnails=0)
    assert "0 of 20 images" in str(fragment(bare))
    with pytest.raises(InputError, match="without thumbnails"):
        bare.plot_grid()


def test_the_grid_shows_every_image_where_it_lies() -> None:
    count, side = 49, 7
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    lattice = torch.stack([order % side, -(order // side)], 1).float()  # row by row, from the top
    shades = (5 * torch.arange(count)).byte()[:, None, None, None].expand(-1, 3, 32, 32)
    found = dataclasses.replace(made(count), coordinates=lattice, thumbnails=shades)
    read = Page(str(fragment(found)))
    (drawn,) = read.all("img")
    assert drawn["alt"] == (
        "The thumbnails of all 49 images, on a grid where those that lie near each other on the map do so, framed by class"
    )
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn["src"].partition(",")[2]))).convert("RGBA"))
    tile = 32 + 2 * 2
    assert picture.shape == (side * (tile + 1) - 1, side * (tile + 1) - 1, 4)
    assert (int(drawn["width"]), int(drawn["height"])) == (360, 360)  # a small one is drawn larger
    for image, cell in enumerate(order.tolist()):
        top, left = cell // side * (tile + 1), cell % side * (tile + 1)
        inner = picture[top + 6 : top + tile - 6, left + 6 : left + tile - 6]
        assert np.abs(inner[..., :3].mean((0, 1)) - 5 * image).max() < 12
        frame = picture[top : top + 2, left + 6 : left + tile - 6, :3].mean((0, 1))
        apart = [np.abs(frame - maps._rgb(shade)).max() for shade in maps.LIGHT[:3]]
        assert int(np.argmin(apart)) == int(found.labels[image])
        assert (picture[top : top + tile, left : left + tile, 3] == 255).all()
    assert not picture[tile, :, 3].any()  # transparent between them
    assert [row["style"] for row in read.all("i") if "style" in row] == [f"background:{s}" for s in maps.LIGHT[:3]]
    blind = dataclasses.replace(found, labels=torch.full((count,), -1))
    assert Page(str(fragment(blind))).all("img")[0]["alt"].endswith("framed by prediction")
    many = str(fragment(made(3000)))
    assert "The thumbnails of 256 of 3,000 images, drawn by lot" in many
    assert not Page(str(fragment(made(20, thumbnails=0)))).all("img")
    assert not Page(str(fragment(found, budget=0))).all("img")
    assert not Page(str(fragment(made(1)))).all("img")


def test_many_classes_share_the_last_colour_and_unknown_ones_are_grey() -> None:
    found = made(500, classes=40)
    kind, names, colours = maps.categories(found, "class")
    assert len(names) == len(colours) == maps.MOST
    assert names[-1] == "31 other classes"
    assert int(kind.max()) == maps.MOST - 1
    assert data(str(fragment(found)))["kinds"]["class"]["rest"]
    some = dataclasses.replace(found, labels=found.labels.where(torch.arange(500) % 2 > 0, -1))
    assert maps.categories(some, "class")[1][-1] == "31 other classes or class not known"
    assert maps.categories(some, "error")[1] == ("right", "wrong", "not known")
    blind = dataclasses.replace(found, labels=torch.full((500,), -1))
    assert list(data(str(fragment(blind)))["kinds"]) == ["prediction"]
    assert len(table(blind)) == 30
    assert "The 30 most frequent classes; 10 more are not listed." in str(fragment(blind))
    with pytest.raises(InputError, match="class, prediction, error"):
        maps.categories(found, "size")


def test_the_reading_says_when_not_to_believe_the_picture() -> None:
    found = made()
    worse = dataclasses.replace(found, right_map=torch.arange(300) % 2)
    assert any("50.0 points worse" in sentence for sentence in worse.words())
    better = dataclasses.replace(found, right_codes=torch.arange(300) % 2)
    assert any("points better" in sentence for sentence in better.words())
    neither = torch.arange(300) % 4 // 3
    lost = dataclasses.replace(found, right_map=neither, right_codes=neither)
    assert any("Neither is better than guessing" in sentence for sentence in lost.words())
    few = (torch.arange(300) < 9).long()
    all_right = torch.ones(300, dtype=torch.int64)
    uneven = dataclasses.replace(found, labels=few, predictions=few, right_map=all_right, chance=291 / 300)
    assert not any("guessing" in sentence for sentence in uneven.words())  # three points, and all that there is to gain
    common = dataclasses.replace(uneven, right_map=1 - few, right_codes=1 - few)
    assert any("Neither is better than guessing" in sentence for sentence in common.words())
    assert any("read no single neighbourhood" in s for s in dataclasses.replace(found, trustworthiness=0.6).words())
    rows = table(found)
    assert sum(int(row.images) for row in rows) == 300
    assert {row.by_code.replace("\u00a0", " ") for row in rows} == {"100 %"}


def test_figures_are_drawn(tmp_path: Path) -> None:
    found = made()
    for colour in maps.COLOURS:
        found.plot(colour).savefig(tmp_path / f"{colour}.png")
        found.plot_grid(100, colour).savefig(tmp_path / f"{colour}.grid.png")
    chosen = maps.spread(found.coordinates, 30)
    at = found.coordinates[chosen]
    apart = torch.cdist(at, at, p=float("inf")) + 1e9 * torch.eye(len(at))
    assert 5 < len(chosen) <= 30
    assert float(apart.min()) > 0.04 * float((found.coordinates.amax(0) - found.coordinates.amin(0)).max())
    assert sorted(maps.by_cover(found.coordinates)) == list(range(300))
    with pytest.raises(RunError, match="cannot be written"):
        write(found, tmp_path / "no" / "map.html")
    assert page(found) == page(found)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

#: what a reader would do, written into the page: look, move over a point, use the keyboard, choose a category
ACTING = """
<script>
addEventListener("load", () => setTimeout(() => {
  const root = document.querySelector(".codemap"), canvas = root.querySelector(".stage canvas"), told = {};
  const tip = root.querySelector(".tip"), live = root.querySelector("[data-live]");
  const wait = () => new Promise((done) => setTimeout(done, 200));
  const key = (name, more) => canvas.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, ...more }));
  const ink = () => {
    const seen = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data, colours = new Set();
    for (let i = 0; i < seen.length; i += 4) colours.add(seen[i] << 16 | seen[i + 1] << 8 | seen[i + 2]);
    return colours.size;
  };
  (async () => {
    told.points = root.dataset.points;
    told.ink = ink();
    key("ArrowRight"); await wait();
    told.live = live.textContent; told.tip = tip.hidden ? "" : tip.textContent; told.thumb = !!tip.querySelector("canvas");
    key("ArrowLeft"); await wait(); told.next = live.textContent;
    key("+"); key("0"); key("Escape"); await wait();
    told.gone = tip.hidden;
    canvas.setPointerCapture = () => {}; // what no finger made has no pointer to capture
    const box = canvas.getBoundingClientRect();
    const touch = (across, down, kinds) => kinds.forEach((kind) => canvas.dispatchEvent(new PointerEvent(kind, {
      pointerId: 7, pointerType: "touch", bubbles: true,
      clientX: box.left + across * box.width, clientY: box.top + down * box.height,
    })));
    const lifted = ["pointerup", "pointerout", "pointerleave"];
    const tap = (across, down) => touch(across, down, ["pointerdown", ...lifted]);
    let across = 0, down = 0;
    for (let i = 0; i < 400; i++) {
      across = (i % 20 + 0.5) / 20, down = (Math.floor(i / 20) + 0.5) / 20;
      tap(across, down);
      if (live.textContent.includes("predicted")) break;
    }
    await wait(); told.tapped = tip.hidden ? "" : tip.textContent; told.heard = live.textContent;
    tap(0, 0); await wait(); told.let = tip.hidden;
    const away = down < 0.5 ? down + 0.3 : down - 0.3; // the same point lies there then
    touch(across, down, ["pointerdown"]); touch(across, away, ["pointermove", ...lifted]); await wait();
    told.dragged = tip.hidden; key("0"); await wait();
    const chip = root.querySelector(".chips button"); chip.click(); await wait();
    told.pressed = root.querySelector(".chips button").getAttribute("aria-pressed"); told.fewer = ink();
    const radio = root.querySelector("input[value=error]"); radio.click(); await wait();
    told.chips = [...root.querySelectorAll(".chips button")].map((each) => each.textContent);
    told.wide = document.documentElement.scrollWidth <= innerWidth;
    const start = performance.now();
    for (let i = 0; i < 10; i++) { key(i % 2 ? "-" : "+"); await new Promise(requestAnimationFrame); }
    told.frame = (performance.now() - start) / 10;
    new Image().src = "/told?" + encodeURIComponent(JSON.stringify(told));
  })().catch((error) => { new Image().src = "/told?" + encodeURIComponent(JSON.stringify({ error: error.message })); });
}, 300));
</script>
"""


def acted(found: MappedCodes, folder: Path, size: str = "1200,1000") -> dict[str, Any]:
    """What a browser has to tell of a page, after a reader did this and that; its rule to load nothing is in the way here."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here to look at the page with")
    text = re.sub(r"<meta http-equiv=.*?>", "", page(found)).replace("</body>", ACTING + "</body>")
    told: queue.Queue[str] = queue.Queue()

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/told?"):
                told.put(unquote(self.path.partition("?")[2]))
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode() if self.path == "/" else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}"]
    command += [f"--window-size={size}", f"http://127.0.0.1:{server.server_port}/", "--remote-debugging-port=0"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        held: dict[str, Any] = json.loads(told.get(timeout=240))
    finally:
        browser.terminate()
        browser.wait(30)
        server.shutdown()
        server.server_close()
    assert "error" not in held, held
    return held


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1200,1000", "500,800"])
def test_it_works_in_a_browser(tmp_path: Path, size: str) -> None:
    told = acted(made(), tmp_path, size)
    assert told["points"] == "300"
    assert told["ink"] > 100  # points, and thumbnails of many colours
    assert told["live"] == told["tip"].partition("class:")[0] + told["live"].removeprefix(
        told["tip"].partition("class:")[0]
    )
    assert "predicted" in told["live"]
    assert told["thumb"]
    assert told["next"] not in ("", told["live"])
    assert told["gone"]
    assert "predicted" in told["tapped"]  # it stays when the finger is lifted
    assert told["tapped"].partition("class:")[0] == told["heard"].partition(", class")[0]
    assert told["let"]
    assert told["dragged"]  # a finger that moved the map chose nothing
    assert told["pressed"] == "true"
    assert told["fewer"] < told["ink"]
    assert [chip.rstrip("0123456789") for chip in told["chips"]] == ["right", "wrong"]
    assert told["wide"]


@pytest.mark.slow
def test_fifty_thousand_points_stay_usable(tmp_path: Path) -> None:
    told = acted(made(50_000, classes=10), tmp_path)
    assert told["points"] == "50000"
    assert told["frame"] < 400  # milliseconds, drawn without a graphics card
    assert len(page(made(50_000, classes=10))) < 9_000_000
