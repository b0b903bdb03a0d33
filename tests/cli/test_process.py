"""The command line as a process: its environment, pipes that close, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import TINY

SEEWHY = (sys.executable, "-m", "seewhy")
LONG = ("audit", "cat.png", "dog.png", "--model", TINY, "--out", "run", "--method", "smoothgrad:samples=4000", "--full")


def test_the_machine_is_set_up_before_torch_comes(here: Path) -> None:
    code = (
        "import os, sys, seewhy.cli as cli\n"
        "assert 'torch' not in sys.modules\n"
        "cli.seewhy.main = lambda: print(os.environ['GOMP_SPINCOUNT'])\n"
        "cli.main()"
    )
    clean = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}

    def spin(**own: str) -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean | own).stdout

    assert spin() == "10000\n"
    assert spin(GOMP_SPINCOUNT="7") == "7\n"


def test_stdout_is_the_answer_alone(here: Path) -> None:
    """Nothing but JSON on stdout and, quietly, nothing on stderr, whatever libraries say; plain letters, no colours."""
    done = subprocess.run(
        [*SEEWHY, "explain", "cat.png", "--model", TINY, "--json", "--quiet"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["explanations"][0]["image"] == "cat.png"
    assert done.stderr == ""
    listed = subprocess.run([*SEEWHY, "methods"], capture_output=True, text=True, env=os.environ | {"COLUMNS": "40"})
    assert "\x1b" not in listed.stdout
    assert "…" not in listed.stdout
    assert max(map(len, listed.stdout.splitlines())) > 80


def test_a_reader_that_goes_away(here: Path) -> None:
    with subprocess.Popen([*SEEWHY, "methods"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(here: Path) -> None:
    with subprocess.Popen([*SEEWHY, *LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        waited = time.monotonic() + 60
        while not (here / "run" / "results.sqlite").exists() and time.monotonic() < waited and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "error: stopped; the same command again goes on from here"
    done = subprocess.run([*SEEWHY, *LONG, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [image["status"] for image in json.loads(done.stdout)["images"]] == ["ok", "ok"]
