"""What a person reads of a dry run: what the job would do, what it would take, how good its teacher is, and what to know before."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from retort.render import fields, table_of, warnings


def plan(planned: Mapping[str, Any]) -> Group:
    """The fits with what they learn from and how long, the places that are looked at, and then all that the service foresees."""
    decided, estimates = planned["plan"], planned.get("estimates") or {}
    times = [_time(fit["seconds"]) for fit in estimates.get("per_fit") or ()]
    table = table_of("fit", "terms", "epochs", "images", "steps", *(["time"] if times else []))
    for k, fit in enumerate(decided["fits"]):
        row = [fit["phase"], ", ".join(fit["terms"]), str(fit["epochs"]), f"{fit['rows']:,}", f"{fit['steps']:,}"]
        table.add_row(*row, *times[k : k + 1])
    table.add_row("in all", "", str(decided["epochs"]), "", f"{decided['steps']:,}", *(_whole(estimates) if times else []))
    lines = [f"{whose}: {', '.join(decided[f'{whose}_taps'])}" for whose in ("teacher", "student") if decided[f"{whose}_taps"]]
    return Group(
        Text("this would do:", "bold"), table, *(Text(f"taps of the {line}") for line in lines), *_foreseen(planned), *_warned(planned)
    )


def _foreseen(planned: Mapping[str, Any]) -> Iterator[RenderableType]:
    estimates, teacher, queue = (planned.get(name) or {} for name in ("estimates", "teacher", "queue"))
    if not estimates:
        return
    table = fields()
    if estimates.get("seconds"):
        table.add_row("time", f"{_time(estimates['seconds'])}, from the start of its process to its end")
        table.add_row("memory", f"{_bytes(estimates['peak_memory_bytes'])} at its peak")
        worker = estimates["worker"]
        threads = f", {worker['threads']} thread{'s' * (worker['threads'] > 1)}" if worker["device"] == "cpu" else ""
        table.add_row("worker", f"{worker['id']} on {worker['host']}: {worker['device']}{threads}")
        table.add_row("basis", str(estimates["basis"]))
    else:
        table.add_row("time", f"unknown: {estimates['reason']}")
    if teacher:
        table.add_row("teacher", _score(teacher))
    if queue.get("waiting"):
        table.add_row("queue", f"{queue['waiting']} waiting before it")
    yield from (Text(), table)


def _score(teacher: Mapping[str, Any]) -> str:
    if "accuracy" not in teacher:
        return str(teacher["reason"])
    return f"accuracy {teacher['accuracy']:.4f} on this dataset (n = {teacher['n']:,}; chance {teacher['chance']:.3g})"


def _warned(planned: Mapping[str, Any]) -> Iterator[Text]:
    """A service from before dry runs foresaw anything warns in the plan alone."""
    if "warnings" not in planned:
        return warnings(planned["plan"])
    return warnings({"warnings": [each["detail"] for each in planned["warnings"]]})


def _whole(estimates: Mapping[str, Any]) -> list[str]:
    return [_time([sum(fit["seconds"][k] for fit in estimates["per_fit"]) for k in (0, 1)])]


def _time(seconds: Sequence[float]) -> str:
    """A range in the unit of its greater end."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds[1] >= 2 * size:
            return f"{seconds[0] / size:.2g} to {seconds[1] / size:.2g} {unit}"
    return f"{seconds[0]:.2g} to {seconds[1]:.2g} s"


def _bytes(bytes: Sequence[float]) -> str:
    size, unit = (1 << 30, "GiB") if bytes[1] >= 2 << 30 else (1 << 20, "MiB")
    return f"{bytes[0] / size:.3g} to {bytes[1] / size:.3g} {unit}"
