"""The command line: `seewhy COMMAND`. Importing it imports no torch, so that help comes at once."""

from __future__ import annotations

import os
import sys

import click

from seewhy import __version__
from seewhy.cli import attack, audit, doctor, lists, look, see, tune, versus
from seewhy.cli.shell import Program, calm_streams
from seewhy.machine import keep_memory, short_spin

__all__ = ["main", "seewhy"]


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="seewhy")
def seewhy() -> None:
    """What a convolutional image classifier learned, why it decided what it did, and how easily it is fooled.

    Start with `seewhy audit`: it looks at a few photographs in every way there is, and writes a report.

    Methods are given as NAME or NAME:OPTION=VALUE,OPTION=VALUE (`seewhy methods` lists them), models as NAME or
    SOURCE:NAME (`seewhy models`). Exit codes: 0 done, 1 failed, 2 wrong input, 130 stopped by Ctrl-C.
    """


for command in (
    *(audit.audit, see.explain, attack.attack, look.look, versus.versus, tune.tune, lists.check),
    *(lists.methods, lists.models, lists.model, lists.data, audit.report, doctor.doctor),
):
    seewhy.add_command(command)


def main() -> None:
    """Set the machine up, before torch comes, and run the command line."""
    short_spin()
    keep_memory()
    calm_streams(sys.stdout, sys.stderr)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    seewhy.main()
