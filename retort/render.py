"""What a person reads: tables of jobs and assets, one of them in full, methods, and errors that say what to try."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from retort.errors import ApiError, RetortError
from retort.job import Job
from retort.values import Asset

_COLOURS = {
    "succeeded": "green", "ready": "green", "failed": "red", "rejected": "red", "quarantined": "red", "running": "cyan",
    "processing": "cyan", "pausing": "yellow", "paused": "yellow", "cancelling": "yellow", "cancelled": "yellow",
}  # fmt: skip

_YAML = 56
"""Where YAML begins a new line: it overshoots by a word or by a field, and still fits 80 columns."""


def error(wrong: RetortError) -> Text:
    """What is wrong, where, whose fault it is, and what to try."""
    if isinstance(wrong, ApiError) and len(wrong.errors) > 1:
        text = Text.assemble(("error: ", "bold red"), f"{len(wrong.errors)} things are wrong:")
        for each in wrong.errors:
            text.append("\n  ").append(each.pointer, "bold").append(f"{': ' if each.pointer else ''}{each.detail}")
            if each.hint:
                text.append("\n    try: ", "bold").append(each.hint)
        return text
    text = Text.assemble(("error: ", "bold red"), str(wrong))
    if isinstance(wrong, ApiError):
        for each in wrong.errors:
            line = f"{each.pointer}: {each.detail}" if each.pointer else each.detail
            if line not in str(wrong):
                text.append(f"\n  {line}")
        if wrong.fault == "system":
            text.append(f"\n  the service's fault, not yours{f'; its log knows it as {wrong.request_id}' if wrong.request_id else ''}")
    if wrong.hint:
        text.append("\n  try: ", "bold").append(wrong.hint)
    return text


def status(word: str) -> Text:
    """A status in its colour."""
    return Text(word, _COLOURS.get(word, ""))


def jobs(listed: Iterable[Job]) -> Table:
    """One line a job."""
    table = table_of("job", "name", "status", "test accuracy", "age")
    for job in listed:
        now = status(job.status) if job.is_terminal else status(job.status).append(f" {_progress(job)}")
        table.add_row(job.id, job.name, now, _score(job.result.get("test") or {}), age(job.raw.get("created_at")))
    return table


def job(one: Job) -> RenderableType:
    """Everything that a person asks of one job."""
    raw = one.raw
    table = fields()
    table.add_row("job", one.id)
    if one.name:
        table.add_row("name", one.name)
    table.add_row("status", status(one.status))
    for name in ("phase", "message", "queue_reason", "attempt", "parent", "baseline", "created_at", "started_at", "finished_at"):
        if raw.get(name) not in (None, "", one.status):
            table.add_row(name.replace("_", " "), str(raw[name]))
    if _progress(one) and not one.is_terminal:
        table.add_row("progress", _progress(one))
    for name, value in ({} if one.is_resting else _latest(raw)).items():
        table.add_row(name, value)
    result = one.result
    test, teacher = result.get("test") or {}, result.get("teacher") or {}
    figures = {
        "test accuracy": _figure(test, "accuracy"),
        "teacher's": _figure(teacher, "accuracy"),
        "agreement": _figure(test, "agreement"),
    }
    for name, shown in {**figures, **_boundary(test, teacher)}.items():
        if shown:
            table.add_row(name, shown)
    for term, facts in (result.get("terms") or {}).items():
        table.add_row(term, ", ".join(f"{name} {value}" for name, value in facts.items()))
    if result.get("parameters"):
        table.add_row("parameters", f"{result['parameters']:,}")
    if result.get("bytes"):
        table.add_row("bytes", f"{result['bytes']:,}")
    trouble = problem(one)
    return Group(table, *warnings(raw), *_curves(result.get("curves") or {}), *([trouble] if trouble else []))


_MEASURES = {
    "fgsm": "test accuracy when each value of a sample is moved by epsilon against the network (FGSM)",
    "parameter_noise": "test accuracy with Gaussian noise of deviation epsilon on every parameter",
}


def _curves(measured: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> Iterator[RenderableType]:
    """A table for each measure that is a curve: epsilon across, a line for each network and for the deviation over the draws."""
    for name in dict.fromkeys(name for found in measured.values() for name in found):
        sides = {who: found[name] for who, found in measured.items() if name in found}
        table = table_of("epsilon", *(f"{epsilon:g}" for epsilon in next(iter(sides.values()))["epsilon"]))
        for who, curve in sides.items():
            for label, column in ((who, "accuracy"), ("  sd", "sd")):
                if column in curve:
                    table.add_row(label, *(f"{value:.3f}" for value in curve[column]))
        yield from (Text(f"\n{_MEASURES.get(name, name)}", "bold"), table)


def _boundary(test: Mapping[str, Any], teacher: Mapping[str, Any]) -> dict[str, str]:
    pairs = {"boundary pairs": f"{test['boundary_pairs']} of {test['boundary_tried']} tried"} if "boundary_tried" in test else {}
    if "magsim" not in test:
        return pairs
    far = f"{test['boundary_distance']:.4g}, the teacher's {teacher['boundary_distance']:.4g}"
    return {**pairs, "MagSim, AngSim": f"{test['magsim']:.3f}, {test['angsim']:.3f}", "boundary distance": far}


def problem(one: Job) -> Text | None:
    """Why a job is not well: what, where, whose fault, what to try, and its last words."""
    if not one.problem:
        return None
    found = one.problem
    text = Text.assemble((f"{one.status}: ", "bold red"), str(found.get("reason") or found.get("code")))
    if found.get("where"):
        text.append(f"\n  where: {found['where']}")
    whose = "yours" if found.get("fault") == "user" else "the service's"
    text.append(f"\n  code: {found.get('code')}; the fault is {whose}")
    if found.get("hint"):
        text.append("\n  try: ", "bold").append(str(found["hint"]))
    for line in found.get("lines", ()):
        text.append(f"\n    {line}", "dim")
    return text


def assets(listed: Iterable[Asset]) -> Table:
    """One line an asset."""
    table = table_of("id", "name", "status", "what", "age")
    for each in listed:
        table.add_row(each.id, each.name, status(each.status), _what(each), age(each.raw.get("created_at")))
    return table


def asset(one: Asset) -> Text:
    """An asset in one sentence, and why it was rejected where it was."""
    text = Text.assemble(f"{one.kind} {one.name!r} is ", status(one.status), f": {one.id}")
    what = _what(one)
    if what:
        text.append(f" ({what})")
    measured = (one.report or {}).get("anatomy") or {}
    if measured.get("activations"):  # a report may be older than that figure
        text.append(f"\n  for one input: {measured['flops']:,} floating-point operations; training keeps {measured['activations']:,} bytes")
    if one.problem:
        where = f"{one.problem['where']}: " if one.problem.get("where") else ""
        text.append(f"\n  {where}{one.problem.get('reason', '')}")
        if one.problem.get("hint"):
            text.append("\n  try: ", "bold").append(str(one.problem["hint"]))
    report = one.report or {}
    if score := report.get("evaluation"):
        text.append(f"\n  accuracy {score['accuracy']:.4f} on {score['n']:,} test samples of {score['dataset']}")
    for kind in ("notes", "warnings"):
        for said in report.get(kind, ()):
            text.append(f"\n  {kind[:-1]}: {said}")
    return text


def taps(listed: Mapping[str, Any]) -> Group:
    """Every place inside a network with its shape, then its stages."""
    table = table_of("tap", "shape")
    for each in listed["data"]:
        table.add_row(str(each["tap"]), _shape(each["shape"]))
    if not listed["stages"]:
        return Group(table)
    stages = table_of("stage", "gives", "channels", "enters the activation behind it", "channels")
    for each in listed["stages"]:
        before = (each["pre"], str(each["pre_channels"])) if each["pre"] else ("no module", "")
        stages.add_row(_shape(each["size"]), str(each["out"]), str(each["channels"]), *before)
    return Group(table, Text(), stages)


_KINDS = {"out": "what the stages give", "pre": "what enters the activation behind each stage"}


def pairs(suggested: Mapping[str, Any]) -> Group:
    """For each kind of pairs: which methods take it, the pairs with their shapes, and how to name others; or why there are none."""
    parts: list[RenderableType] = []
    for each in suggested["data"]:
        methods = each["methods"]
        taken = f"where a job names none, those of {', '.join(methods)} are made of these" if methods else "no method takes these by itself"
        parts.append(Text.assemble((f"{each['kind']}: {_KINDS[each['kind']]}", "bold"), f"; {taken}"))
        if not each["pairs"]:
            parts.append(Text.assemble(f"  none: {each['reason']}", ("\n  try: ", "bold"), f"{each['hint']}\n"))
            continue
        table = table_of("teacher", "shape", "student", "shape")
        for pair in each["pairs"]:
            table.add_row(*(word for side in ("teacher", "student") for word in (pair[side]["tap"], _shape(pair[side]["shape"]))))
        parts.append(table)
        if methods:
            named = json.dumps([[pair["teacher"]["tap"], pair["student"]["tap"]] for pair in each["pairs"]])
            parts.append(_command(f"to name others: --method '{methods[0]}:pairs={named}'"))
        parts.append(Text())
    return Group(*parts)


def methods(listed: Sequence[Mapping[str, Any]]) -> Table:
    """One line a method."""
    table = table_of("name", "what it is", "reference")
    for each in listed:
        table.add_row(str(each["name"]), str(each["title"]), str(each["reference"]))
    return table


def presets(listed: Sequence[Mapping[str, Any]]) -> Table:
    """One line a preset: its name, and the first sentence of its note."""
    table = table_of("name", "what it is")
    for each in listed:
        table.add_row(str(each["name"]), _first_sentence(str(each["note"])))
    return table


def preset(one: Mapping[str, Any]) -> Group:
    """A preset in full: its note, its published row where it has one, its spec, and how to begin with it."""
    told = {field: one[field] for field in ("networks", "published", "spec") if one.get(field) is not None}
    return Group(
        Text(str(one["name"]), "bold"),
        Text(f"{one['note']}\n"),
        Text(yaml.safe_dump(told, sort_keys=False, default_flow_style=None, allow_unicode=True, width=_YAML)),
        _command(f"begin with it: retort submit --preset {one['name']} --teacher tch_… --student arc_… --dataset ds_…"),
    )


def method(one: Mapping[str, Any]) -> Markdown:
    """The page of a method."""
    return Markdown(str(one["page"]))


def warnings(told: Mapping[str, Any]) -> Iterator[Text]:
    """What a plan or a job warns of."""
    return (Text.assemble(("warning: ", "yellow"), str(line)) for line in told.get("warnings") or ())


def files(listed: Iterable[tuple[str, int]]) -> Table:
    """Paths and sizes."""
    table = table_of("file", "bytes")
    for path, size in listed:
        table.add_row(path, f"{size:,}")
    return table


def table_of(*columns: str) -> Table:
    """A table without lines, whose words are folded and whose ids are not."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("job", "id", "status", "test accuracy", "age"))
    return table


def _command(line: str) -> Text:
    """A line to copy: a terminal folds it where it must, and it stays one line."""
    return Text(line, "dim", no_wrap=True, overflow="ignore")


def fields() -> Table:
    """A line for each field: its name, and what it is."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _first_sentence(words: str) -> str:
    """Up to the first full stop that a capital letter follows: not to that of an "et al. 2019" or of a number."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", words.strip(), maxsplit=1)[0]


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _progress(one: Job) -> str:
    percent = one.progress.get("percent")
    return "" if percent is None or one.status == "queued" else f"{percent:.0f} %"


def _latest(raw: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{value:.4g}" for name, value in (raw.get("latest_metrics") or {}).items() if isinstance(value, int | float)}


def _score(test: Mapping[str, Any]) -> str:
    """What there is of a student's test: without labels that is its agreement with the teacher."""
    agreement = _figure(test, "agreement")
    return _figure(test, "accuracy") or (f"agreement {agreement}" if agreement else "")


def _figure(measured: Mapping[str, Any], name: str) -> str:
    if measured.get(name) is None:
        return ""
    return f"{measured[name]:.4f}" + (f" (n = {measured['n']})" if measured.get("n") else "")


def _what(one: Asset) -> str:
    report = one.report or {}
    if "counts" in report:
        known = f"{report['classes']} classes" if report.get("labelled", True) else "no labels"
        return f"{known}, " + ", ".join(f"{count} {split}" for split, count in report["counts"].items())
    return f"{report['parameters']:,} parameters" if "parameters" in report else ""


def age(created: Any) -> str:
    """How long ago a moment of the service was, in one unit."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(str(created))).total_seconds()
    except ValueError:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
