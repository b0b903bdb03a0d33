"""What `seewhy explain` says of methods with rules: each operation's rule, and where relevance is lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from seewhy.cli.shell import Shell
from seewhy.cli.work import about
from seewhy.errors import SpecError

if TYPE_CHECKING:
    from seewhy.classifier import Classifier
    from seewhy.explain.lrp import Ledger

#: operations that keep less than this share of the logit are shown together
SHOWN = 0.01


def able(methods: dict[str, Any], what: str, has: str) -> dict[str, Any]:
    """The methods that have `what`, by their specs; raises `SpecError`, saying what none of them `has`."""
    found = {spec: method for spec, method in methods.items() if callable(getattr(method, what, None))}
    if not found:
        from seewhy.method import registry

        those = [name for name, cls in registry("explain").items() if hasattr(cls, what)]
        raise SpecError(f"{', '.join(methods)} has {has}; these have: {', '.join(those)}")
    return found


def show_plans(spoken: Shell, net: Classifier, methods: dict[str, Any]) -> None:
    """The rule of each operation, for the methods that have rules."""
    plans = {spec: method.plan(net) for spec, method in able(methods, "plan", "no rules to list").items()}
    document = {spec: [dict(vars(row)) for row in plan.rows] for spec, plan in plans.items()}

    def show() -> None:
        for spec, plan in plans.items():
            rows = [(row.address, row.op, f"with {row.merged}" if row.merged else row.rule) for row in plan.rows]
            spoken.table(("address", "operation", "rule"), rows, title=f"{spec} on {net.name}")

    spoken.answer({"model": about(net), "plans": document}, show)


def account_of(ledger: Ledger) -> dict[str, Any]:
    """What became of one image's logit as plain values, from the logit down to the pixels or the method's layer."""
    return {
        "started": float(ledger.started[0]),
        "reached": float(ledger.reached[0]),
        "aside": float(ledger.aside[0]),
        "operations": [
            {
                "address": row.address,
                "op": row.op,
                "rule": row.rule,
                "arrived": float(row.arrived[0]),
                "passed": float(row.passed[0]),
                "lost": float(row.lost[0]),
            }
            for row in ledger.rows
        ],
    }


def show_accounts(spoken: Shell, explanations: Iterable[dict[str, Any]]) -> None:
    """For each explanation that has an account, the operations that kept some of the logit, and what is left of it."""
    for told in explanations:
        if "account" not in told:
            continue
        account, started = told["account"], told["account"]["started"]
        most = {row["address"]: row for row in account["operations"] if abs(row["lost"]) >= SHOWN * abs(started)}
        rest = [row["lost"] for row in account["operations"] if row["address"] not in most]
        parts = [(row["address"], row["rule"], row["lost"]) for row in most.values()]
        parts += [(f"the other {len(rest)}", "", sum(rest))] if rest else []
        end = told["layer"]
        parts += [(f"what passed {end} by", "", account["aside"])] if end else []
        parts += [(f"what came to {end or 'the pixels'}", "", account["reached"])]
        rows = [
            (name, rule, f"{amount:.4g}", f"{amount / started:.1%}" if started else "–") for name, rule, amount in parts
        ]
        click.echo()
        title = (
            f"{told['image']}, {told['method']}: where the logit of {told['class']['label']}, {started:.4g}, was lost"
        )
        spoken.table(("operation", "rule", "lost", "of the logit"), rows, title=title)
