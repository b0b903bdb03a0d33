"""Audits that are stopped at a chosen moment, each in a process of its own.

Reads tasks as JSON from stdin, `{out, photos, methods, event, at, signal}`, and answers `[{code, error, events}]`: the
exit code (negative for a signal), the sentence that was raised, and how often each event came. The process forks before
anything runs in threads, so that a dozen audits cost one import of torch.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nets import Spelled, classifier
from seewhy.errors import SeewhyError
from seewhy.run import Run, audit, store


def go(task: dict[str, Any]) -> dict[str, Any]:
    """One task in a child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 0
        answer: dict[str, Any] = {"error": None, "events": {}}
        try:
            answer["events"] = run(task)
        except SeewhyError as error:
            answer["error"], code = f"{type(error).__name__}: {error}", 2
        except KeyboardInterrupt:
            code = 130
        os.write(writer, json.dumps(answer).encode())
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"error": None, "events": {}, **(json.loads(text) if text else {}), "code": code}


def run(task: dict[str, Any]) -> dict[str, int]:
    torch.set_num_threads(1)
    events = watch(task.get("event"), task.get("at", 0), getattr(signal, task.get("signal", "SIGKILL")))
    net = classifier(Spelled("in-place"))
    audit(net, task["photos"], task["out"], spec="spelled", methods=task["methods"], budget=None).close()
    return events


def watch(event: str | None, at: int, how: signal.Signals) -> Counter[str]:
    """Count what a run does to its disk, and stop the process the `at`-th time that `event` is about to happen."""
    events: Counter[str] = Counter()

    def seen(name: str, before: Callable[[], object] = lambda: None) -> None:
        events[name] += 1
        if name == event and events[name] == at:
            before()
            os.kill(os.getpid(), how)

    replace, settle, connected, commit = os.replace, store._settle, store._connected, Run._commit

    def watched_replace(source: Path, target: Path) -> None:
        seen("rename")
        replace(source, target)
        seen("renamed")

    def watched_settle(path: Path) -> None:
        seen("half", lambda: halve(path))
        settle(path)

    def watched_connected(path: Path) -> sqlite3.Connection:
        database = connected(path)
        database.set_trace_callback(lambda statement: seen("commit") if statement == "COMMIT" else None)
        return database

    def watched_commit(self: Run, *words: Any) -> None:
        commit(self, *words)
        seen("committed")

    store.os.replace = watched_replace  # type: ignore[attr-defined]
    store._settle = watched_settle
    store._connected = watched_connected
    Run._commit = watched_commit  # type: ignore[method-assign, assignment]
    return events


def halve(path: Path) -> None:
    """Leave half of a file, or of every file in a folder, as a write that was cut off does."""
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        os.truncate(file, file.stat().st_size // 2)


if __name__ == "__main__":
    json.dump([go(task) for task in json.load(sys.stdin)], sys.stdout)
