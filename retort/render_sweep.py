"""What a person reads of a sweep: how far it is, its trials, the best one with its re-runs, and which field mattered."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from retort.render import age, fields, status, table_of
from retort.sweep import Sweep


def sweeps(listed: Iterable[Sweep]) -> RenderableType:
    """One line a sweep."""
    table = table_of("id", "name", "status", "best", "age")
    for each in listed:
        best = each.result.get("best")
        table.add_row(each.id, each.name, status(each.status), _value(best.get("value")) if best else "", age(each.raw.get("created_at")))
    return table


def news(one: Sweep) -> str:
    """How far a sweep is, in a few words."""
    progress = one.progress
    counts = [f"{progress[name]} {name}" for name in ("completed", "pruned", "failed", "cancelled", "unfinished") if progress.get(name)]
    parts = [f"{progress.get('made', 0)} of {progress.get('of', '?')} trials", *counts]
    if progress.get("reruns"):
        parts.append(f"{progress['reruns']} re-run{'s' * (progress['reruns'] > 1)} of the best")
    if one.best:
        parts.append(f"best {_value(one.best.get('value'))}")
    return f"{one.name or one.id}: {one.status}  {', '.join(parts)}"


def sweep(one: Sweep, trials: Sequence[Mapping[str, Any]]) -> Group:
    """Everything that a person asks of one sweep."""
    table = fields()
    asked, result = one.raw["request"], one.result
    table.add_row("sweep", one.id)
    if one.name:
        table.add_row("name", one.name)
    table.add_row("status", status(one.status))
    objective = asked["objective"]
    table.add_row("searches", f"{asked['strategy']} over {', '.join(asked['space'])}, by {objective['metric']}")
    table.add_row("trials", news(one).partition("  ")[2])
    if one.best:
        table.add_row("best", f"trial {one.best['trial']}: {_params(one.best['params'])}, {_value(one.best['value'])} ({one.best['job']})")
    again = result.get("reruns")
    if again:
        table.add_row("re-runs", f"{_spread(again)}, seeds {', '.join(map(str, again['seeds']))}")
        for name in ("accuracy", "agreement"):
            if f"test_{name}" in again:
                table.add_row("their test", f"{name} {_spread(again[f'test_{name}'])}")
    if result.get("importances"):
        ranked = sorted(result["importances"].items(), key=lambda each: -each[1])
        shares = ", ".join(f"{path} {weight:.2f}" for path, weight in ranked)
        table.add_row("importance", f"{shares} (an estimate, from {one.progress['completed']} trials)")
    elif result:
        table.add_row("importance", f"none: {result['importances_reason']}")
    parts: list[RenderableType] = [table]
    if one.problem:
        parts.append(Text.assemble(("failed: ", "bold red"), str(one.problem["reason"]), ("\n  try: ", "bold"), str(one.problem["hint"])))
    if trials:
        parts += [Text(), _trials(trials, list(asked["space"]))]
    return Group(*parts)


def _trials(trials: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> RenderableType:
    table = table_of("trial", *paths, "seed", "outcome", "value", "job")
    for each in trials:
        number = str(each["trial"]) if each["role"] == "trial" else "re-run"
        outcome = str(each["status"]) if each["outcome"] == "unfinished" else str(each["outcome"])
        values = [_value(each["params"][path]) for path in paths]
        problem = each["problem"] or {}
        job = str(each["job"] or f"none: {problem.get('reason', '')}")
        seed = "" if each["seed"] is None else str(each["seed"])
        table.add_row(number, *values, seed, status(outcome), "" if each["value"] is None else _value(each["value"]), job)
    return table


def _params(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {_value(value)}" for path, value in params.items())


def _spread(measured: Mapping[str, Any]) -> str:
    if measured["mean"] is None:
        return "none"
    deviation = f" ± {measured['sd']:.4f}" if measured["sd"] is not None else ""
    return f"{measured['mean']:.4f}{deviation} (n = {measured['n']})"


def _value(value: Any) -> str:
    """A value as it may be written into a file again, numbers short."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
