"""Set-up by the Makefile: what it leaves alone, what it keeps, and what it says where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or os.name == "nt", reason="needs make and a shell, as on Linux and macOS"
)

#: a Python that makes environments in no time, which keep what they are asked
PYTHON = """\
#!/bin/sh
if [ "$1 $2" != "-m venv" ]; then exec "{python}" "$@"; fi
for folder; do :; done
if [ "$3" = "--clear" ]; then rm -rf "$folder"; fi
mkdir -p "$folder/bin"
cp "{inside}" "$folder/bin/python"
"""
INSIDE = """\
#!/bin/sh
echo "$@" >> "{asked}"
case "$*" in *freeze*) printf 'torchvision==0.28.0\\n# a remark\\n-e git+https://example.org/a\\nmine @ file:///a/b\\n';; esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what set-up reads, and in it an environment of the user's own."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "theirs").touch()
    return folder


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def make(clone: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *words], cwd=clone, env={**outer, **settings}, capture_output=True, text=True, check=False
    )


def test_what_the_user_made_is_left_alone_and_what_was_added_is_kept(clone: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    inside = script(tmp_path / "inside", INSIDE.format(asked=asked))
    python = script(tmp_path / "python", PYTHON.format(python=sys.executable, inside=inside))

    def ready(name: str) -> list[str]:
        asked.write_text("")
        done = make(clone, f"{name}/.ready", f"PYTHON={python}")
        assert done.returncode == 0, done.stderr
        return asked.read_text().splitlines()

    assert ready(".venv-seewhy")
    added = clone / ".venv-seewhy" / "added"
    added.touch()
    assert ready(".venv-seewhy") == []  # nothing changed
    os.utime(clone / "constraints.txt", (4e9, 4e9))
    (install,) = (line for line in ready(".venv-seewhy") if "install" in line)
    assert install.endswith("--constraint constraints.txt --editable . torchvision mine")
    assert added.exists()

    assert ready(".venv-dev")
    (clone / ".venv-dev" / "added").touch()
    first, second = ready(".venv-dev")  # the constraints are of the future
    assert first.endswith("--editable .[all,dev]")
    assert "--no-deps" in second
    assert not (clone / ".venv-dev" / "added").exists()

    assert make(clone, "clean").returncode == 0
    assert sorted(path.name for path in clone.glob(".venv*")) == [".venv"]
    assert (clone / ".venv" / "theirs").exists()


def test_a_python_that_makes_no_environments_is_refused_in_a_sentence(clone: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    done = make(clone, ".venv-seewhy/.ready", f"PYTHON={sys.executable}", PYTHONPATH=str(hidden))
    assert done.returncode
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    said = done.stderr.splitlines()
    assert f"sudo apt install {package}; or say another, PYTHON=..." in said[0]
    assert "Traceback" not in done.stderr
    assert not (clone / ".venv-seewhy").exists()


def test_the_readme_installs_extras_at_the_tested_versions_once_the_environment_is_on() -> None:
    text = (ROOT / "README.md").read_text()
    activated, installed = text.index(". .venv-seewhy/bin/activate"), text.index('-e ".[zoo]"')
    assert activated < installed
    assert "pip install -c constraints.txt -e" in text
