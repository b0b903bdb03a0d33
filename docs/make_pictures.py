"""Make docs/images/report.png, the README's picture: three places of a report side by side, as Chromium shows them.

seewhy audit --out seewhy-audit
python docs/make_pictures.py seewhy-audit/report.html
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

_HERE = Path(__file__).resolve().parent
_NAMES = ("chromium", "chromium-browser", "google-chrome")

#: what is left out of each of the pictures: nothing, what stands before the optimised images, and all but the first photograph
_HIDDEN = (
    "none",
    "header.top, nav, main > *:not(#learned), #learned > *:not(#learned-made):not(#learned-made ~ *)",
    "header.top, nav, main > *:not(#photo-1)",
)
_SEEN, _KEPT = (1360, 2280), (640, 1073)
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--blink-settings=preferredColorScheme=1",
)


def photograph(report: Path, target: Path) -> None:
    """Have Chromium draw a report at three places, and keep them in few colours, as a small PNG."""
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    if browser is None:
        raise SystemExit(f"expected a browser to draw the report, one of {', '.join(_NAMES)}; there is none")
    gap = 16
    sheet = Image.new("RGB", (len(_HIDDEN) * (_KEPT[0] + gap) - gap, _KEPT[1]), (128, 128, 128))
    with tempfile.TemporaryDirectory() as folder:
        for number, hidden in enumerate(_HIDDEN):
            shot = Path(folder) / f"{number}.png"
            window = f"--window-size={_SEEN[0]},{_SEEN[1]}"
            style = f"{hidden} {{ display: none !important; }} main > section {{ border: 0 !important; }}"
            if number:  # without the contents beside it
                style += " .body { display: block !important; }"
            page = Path(folder) / f"{number}.html"
            page.write_text(
                report.read_text(encoding="utf-8").replace("</style>", f"{style}</style>", 1), encoding="utf-8"
            )
            words = [f"--user-data-dir={folder}/profile", f"--screenshot={shot}", window, page.as_uri()]
            subprocess.run([browser, *_QUIET, *words], check=True, capture_output=True, timeout=240)
            with Image.open(shot) as picture:
                smaller = picture.convert("RGB").resize(_KEPT, Image.Resampling.LANCZOS)
            sheet.paste(smaller, (number * (_KEPT[0] + gap), 0))
    few = sheet.quantize(256, method=Image.Quantize.FASTOCTREE)
    target.parent.mkdir(parents=True, exist_ok=True)
    few.save(target, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python docs/make_pictures.py REPORT.html")
    photograph(Path(sys.argv[1]), _HERE / "images" / "report.png")
