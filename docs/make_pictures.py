"""Make docs/images/report.png, the README's picture: the first page of a report, as Chromium shows it.

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
_SEEN, _KEPT = (1400, 2280), (1200, 1954)
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--blink-settings=preferredColorScheme=1",
)


def photograph(report: Path, target: Path) -> None:
    """Have Chromium draw the top of a report, and keep it in few colours, as a small PNG."""
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    if browser is None:
        raise SystemExit(f"expected a browser to draw the report, one of {', '.join(_NAMES)}; there is none")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        window = f"--window-size={_SEEN[0]},{_SEEN[1]}"
        place = [f"--user-data-dir={folder}/profile", f"--screenshot={shot}", window, report.resolve().as_uri()]
        subprocess.run([browser, *_QUIET, *place], check=True, capture_output=True, timeout=120)
        with Image.open(shot) as picture:
            smaller = picture.convert("RGB").resize(_KEPT, Image.Resampling.LANCZOS)
    few = smaller.quantize(256, method=Image.Quantize.FASTOCTREE)
    target.parent.mkdir(parents=True, exist_ok=True)
    few.save(target, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python docs/make_pictures.py REPORT.html")
    photograph(Path(sys.argv[1]), _HERE / "images" / "report.png")
