"""Measure seewhy beside a plain pass and beside its peers, and write what was found into benchmarks/README.md.

python -m benchmarks            # every part
python -m benchmarks engine     # only some; their sections are replaced, the others stay
"""

from __future__ import annotations

import importlib
import platform
import re
import sys
import time
from pathlib import Path

from seewhy.machine import keep_memory, short_spin

short_spin()

import torch

HERE = Path(__file__).parent

#: the parts in the order of the page; each is a function in a module here, and answers lines of Markdown, or all that it
#: has so far after each row, so that a run that is cut off keeps what it measured
PARTS = {
    "engine": "foundation",
    "methods": "foundation",
    "peers": "foundation",
    "audit": "foundation",
    "lrp": "relevance",
    "occlusion": "occlusion",
    "lime": "lime",
    "shap": "shap",
    "deep_shap": "deep_shap",
    "cams": "cams",
    "path": "path",
    "black_box": "black_box",
    "optimised": "optimised",
    "white_box": "white_box",
    "gpu": "gpu",
    "maximize": "maximize",
    "receptive": "receptive",
    "exemplars": "exemplars",
    "map": "map",
    "people": "people",
    "tune": "tune",
}

HEAD = """\
# Benchmarks

Made by `make bench`; nothing here is written by hand. What is compared takes turns in one run; medians, and medians
of the turn-by-turn ratios. Random weights, but for EfficientNet-Lite0; 224 × 224 pixels; float32 unless said.
"""


def main(chosen: list[str]) -> None:
    keep_memory()
    for name in chosen or PARTS:
        made = getattr(importlib.import_module(f"benchmarks.{PARTS[name]}"), name)()
        if made == []:
            print(f"{name}: not on this machine; its section stays as it is", flush=True)
            continue
        whole: list[str] = []
        for lines in [made] if isinstance(made, list) else made:
            write(name, [*lines, "", "**Cut off before its end.**"])
            print(*(line for line in lines if line not in whole), sep="\n", flush=True)
            whole = lines
        print(write(name, whole), flush=True)


def write(name: str, lines: list[str]) -> str:
    """Put a part's lines, and what made them, in its place on the page; returns them."""
    page = HERE / "README.md"
    there = sections(page.read_text()) if page.exists() else {}
    made = (
        f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}; `make bench ARGS={name}`."
    )
    there[name] = "\n".join([*lines, "", made])
    kept = [f"<!-- part: {part} -->\n{there[part]}\n<!-- end -->\n" for part in PARTS if part in there]
    page.write_text("\n".join([HEAD, *kept]))
    return there[name]


def sections(text: str) -> dict[str, str]:
    """The parts of a page that was written before."""
    return dict(re.findall(r"<!-- part: (\w+) -->\n(.*?)\n<!-- end -->", text, re.DOTALL))


if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in PARTS]
    if unknown:
        raise SystemExit(f"there is no benchmark {unknown[0]}; there are: {', '.join(PARTS)}")
    main(sys.argv[1:])
