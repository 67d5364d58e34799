"""`python -m tests.chaos.publish`: what the long set and the comparison found, as the tables of docs/reliability.md."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- measured: make chaos writes this part -->", "<!-- end of what make chaos writes -->"

KINDS = {
    "SIGKILLs of a worker, a child or an API": ("kill", "kill child", "crash"), "freezes": ("freeze",), "flushes of Redis": ("flush",),
    "restarts of a server": ("restart",), "ambiguous commits": ("ambiguous commit",), "SIGTERMs": ("terminate",), "cancels": ("cancel",),
    "pauses": ("pause",),
}  # fmt: skip
"""What is counted together, of the kinds of fault in the log; a crash is a SIGKILL at a named crash point."""

SAME = {
    "kill worker": ("W1", "a worker is killed"), "kill child": ("W3", "the process that works is killed"),
    "freeze worker": ("W4", "a worker stands still for longer than its lease, or the visibility timeout"),
    "flush": ("B2", "the broker is flushed while twenty jobs wait"), "restart broker": ("B1", "the broker is killed; an empty one comes"),
    "freeze broker": ("B3", "the broker stands still"),
}  # fmt: skip
"""The faults of the comparison, and the scenarios that are like them."""


def tables(report: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """Everything between the two marks of the page."""
    return "\n".join(
        [*_totals(report), "", *_scenarios(report), "", *_times(report), "", *_comparison(report, baseline), "", *_power(report)]
    )


def _totals(report: Mapping[str, Any]) -> Iterable[str]:
    found = [each["invariant"] for each in report["violations"]]
    struck = sum(report["faults"].values())
    hardware, versions = report["hardware"], report["versions"]
    yield (
        f"{report['at'][:10]}, seed {report['seed']}, {hardware['cores']} cores: **{report['jobs']:,} jobs, {struck:,} faults; "
        f"{found.count('I1')} lost, {found.count('I2')} completed twice, {found.count('I3')} wrong students**, {len(found)} violations. "
        f"No failure in n independent trials bounds their rate at 3/n with 95 % confidence: {_percent(3 / report['jobs'])} of jobs, "
        f"{_percent(3 / struck)} of faults."
    )
    yield ""
    yield "Among them " + ", ".join(f"{sum(report['faults'].get(kind, 0) for kind in kinds)} {what}" for what, kinds in KINDS.items()) + "."
    yield ""
    yield f"Python {versions['python']}, " + ", ".join(f"{name} {is_}" for name, is_ in versions.items() if name != "python") + "."
    for missing in report.get("missing", ()):
        yield f"Not run: {missing}."


def _scenarios(report: Mapping[str, Any]) -> Iterable[str]:
    yield "| | what is done | on | jobs | faults | violations |"
    yield "|---|---|---|---|---|---|"
    for each in sorted(report["scenarios"], key=lambda each: (each["scenario"], each["database"])):
        faults = ", ".join(f"{n} {name}" for name, n in each["faults"].items())
        bad = ", ".join(f"{n} {name}" for name, n in each["violations"].items()) or "0"
        yield f"| {each['scenario']} | {each['what']} | {each['database']} | {each['jobs']} | {faults} | {bad} |"


def _times(report: Mapping[str, Any]) -> Iterable[str]:
    yield "| seconds | on | n | median | p99 | greatest |"
    yield "|---|---|---|---|---|---|"
    for each in sorted(report["scenarios"], key=lambda each: (each["scenario"], each["database"])):
        for name, took in each["seconds"].items():
            yield f"| {each['scenario']}: {name} | {each['database']} | {took['n']} | {took['median']} | {took['p99']} | {took['max']} |"


def _comparison(report: Mapping[str, Any], baseline: Mapping[str, Any]) -> Iterable[str]:
    plain = ("plain Celery, `acks_late`", "with `reject_on_worker_lost`")
    yield "| faults, jobs | " + " | ".join(f"{whose} | lost | twice" for whose in ("Retort", *plain)) + " |"
    yield "|" + "---|" * 10
    for fault, (scenario, words) in SAME.items():
        ours = [each for each in report["scenarios"] if each["scenario"] == scenario]
        n, jobs = sum(each["n"] for each in ours), sum(each["jobs"] for each in ours)
        bad = [sum(each["violations"].get(name, 0) for each in ours) for name in ("I1", "I2")]
        yield (
            f"| {words} | {n}, {jobs} | {bad[0]} | {bad[1]} | "
            + " | ".join(_plain(baseline, fault, reject=it) for it in (False, True))
            + " |"
        )
    for fault, words in (("long job", "nothing fails, and jobs last longer than the visibility timeout"), ("none", "nothing fails")):
        yield f"| {words} | | | | " + " | ".join(_plain(baseline, fault, reject=it) for it in (False, True)) + " |"


def _plain(baseline: Mapping[str, Any], fault: str, *, reject: bool) -> str:
    (found,) = [each for each in baseline["faults"] if each["fault"] == fault and each["reject_on_worker_lost"] == reject]
    lost = found["lost"] if found["at_rest"] else "never at rest"
    return f"{found['faults']}, {found['accepted']} | {lost} | {found['completed_twice']}"


def _power(report: Mapping[str, Any]) -> Iterable[str]:
    yield "| taken away | on | times | what the checker reports |"
    yield "|---|---|---|---|"
    for each in report["sabotages"]:
        found = ", ".join(f"{n} of {name}" for name, n in each["found"].items()) or "nothing"
        yield f"| {each['without'].replace('_', ' ')} | {each['database']} | {each['n']} | {found} |"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def page(text: str, report: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """The page with its measured part replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(report, baseline)}\n\n{END}{after}"


def main(words: Sequence[str] | None = None) -> int:
    """Write the page anew."""
    report, baseline = (json.loads((RESULTS / name).read_text()) for name in ("chaos.json", "chaos_baseline.json"))
    PAGE.write_text(page(PAGE.read_text(), report, baseline))
    return 0


if __name__ == "__main__":
    sys.exit(main())
