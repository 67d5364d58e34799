"""The result of a table as Markdown: errors beside the published ones, paired differences, and what is not as it was published."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Cell = Mapping[str, Any]

_MEASURES = {
    "magsim": "MagSim, how alike the shortest ways to the decision boundaries of student and teacher are in length (1: equal)",
    "angsim": "AngSim, how alike they are in direction (1: equal)",
    "boundary_distance": "The mean length of the student's shortest way to its boundary, in data units",
    "boundary_pairs": "How many pairs of sample and class the three means above are over",
    "fgsm": "Accuracy on FGSM's samples at the largest epsilon, a share of all test images, and in brackets the published one",
    "parameter_noise": "Accuracy with noise on the parameters at the largest epsilon, as a share, and in brackets the published one",
}
"""What is shown beside the errors, where a table measures it: the value's name in the result, and its caption."""


def page(result: Mapping[str, Any]) -> str:
    """The page of what `benchmarks.tables` measured."""
    n, data, machine = len(result["seeds"]), result["data"], result["machine"]
    counts = data["counts"]
    parts = [
        f"# {result['table']}: {result['title']}",
        f"{data['name']}, {counts['train']:,} training and {counts['test']:,} test images; scale `{result['scale']}`; "
        f"{n} seed{'s'[: n > 1]}. "
        "Test error in % of the last epoch's student on all test images: mean ± sample standard deviation, and in brackets the published "
        "error. A seed decides the initial weights, the order and the views of the images, and which of them are taken.",
        _grid(result, _error),
    ]
    for name in result["against"]:
        key = f"to_{name}"
        if any(cell.get(key) for cell in result["cells"]):
            parts += [
                f"Less the error of {_called(result, name)} with the same seed, in points (below 0 is better): mean and 95 % t interval. "
                "An interval that holds 0 tells no difference.",
                _grid(result, lambda cell, key=key: _difference(cell.get(key)), only=key),  # type: ignore[misc]
            ]
    measured = [name for name in _MEASURES if any(name in cell["measured"] for cell in result["cells"])]
    if "magsim" in measured:
        parts.append("Decision boundaries of student and teacher, a reconstruction of our own, for test images that both classify right:")
    for name in measured:
        parts += [f"{_MEASURES[name]}: mean ± sample standard deviation.", _grid(result, lambda cell, name=name: _measured(cell, name))]  # type: ignore[misc]
    ranks = list(_ranks(result["ranking"]))
    if ranks:
        parts.append("How far the order of the rows is the published one (Spearman's rank correlation; 1 is the same order, 0 none):")
        parts.append("\n".join(ranks))
    parts += [
        "The teachers, one for all seeds:",
        "\n".join(
            f"- {teacher['network']}: {teacher['error']:.2f} % test error after {teacher['epochs']} epochs on {teacher['images']:,} images"
            for teacher in result["teachers"]
        ),
        "What each column is here, and at full scale:",
        _table(
            ("column", "here", f"full scale ({result['published_data']})"),
            [(name, column["here"], column["full"]) for name, column in result["columns"].items()],
        ),
        *([f"In all columns here: {'; '.join(result['changes'])}."] if result["changes"] else []),
        *([f"What ran: {'; '.join(_ran(result['runs']))}."] if _ran(result["runs"]) else []),
        f"Published errors: {result['source']}.",
        "What is known of the published setting, and what is our choice:",
        "\n".join(f"- {note.strip()}" for note in result["notes"]),
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
        f"torch {machine['versions']['torch']}, commit {machine['commit']}.",
    ]
    return "\n\n".join(parts) + "\n"


def _grid(result: Mapping[str, Any], tell: Callable[[Cell], str], *, only: str | None = None) -> str:
    """Rows and columns of the table; with `only`, the rows that have something of that name."""
    cells = {(cell["row"], cell["column"]): cell for cell in result["cells"]}
    columns = list(result["columns"])
    rows = {row: title for row, title in result["rows"].items() if only is None or any(cells[row, column].get(only) for column in columns)}
    return _table(("", *columns), [(title, *(tell(cells[row, column]) for column in columns)) for row, title in rows.items()])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _error(cell: Cell) -> str:
    told = []
    if cell["error"] is not None:
        sd = cell["error"]["sd"]
        told.append(f"{cell['error']['mean']:.2f}" + (f" ± {sd:.2f}" if sd is not None else ""))
    if cell["diverged"]:
        told.append(f"{cell['diverged']} diverged")
    if cell["published"] is not None:
        told.append(f"({cell['published']:.2f})")
    return " ".join(told)


def _measured(cell: Cell, name: str) -> str:
    found = cell["measured"].get(name)
    if found is None:
        return ""
    digits = 1 if name == "boundary_pairs" else 3
    published = cell["published_measured"].get(name)
    told = f"{found['mean']:.{digits}f}" + (f" ± {found['sd']:.{digits}f}" if found["sd"] is not None else "")
    return told + (f" ({published:.2f})" if published is not None else "")


def _called(result: Mapping[str, Any], row: str) -> str:
    return "no teacher" if row == "none" else result["rows"][row]


def _ranks(ranking: Mapping[str, Any]) -> Iterator[str]:
    """A line for each column that has published values of three rows or more."""
    for column, found in ranking.items():
        told = [f"{name} {own['spearman']:+.2f} ({own['rows']} rows)" for name, own in found.items() if own["spearman"] is not None]
        if told:
            yield f"- {column}: {', '.join(told)}"


def _ran(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Which form each term took, and in how many trainings."""
    forms = Counter(
        f"{term} with {name} {value}" for run in runs for term, facts in run.get("terms", {}).items() for name, value in facts.items()
    )
    return [f"{form} in {n} training{'s'[: n > 1]}" for form, n in sorted(forms.items())]


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    interval = f" [{found['low']:+.2f}, {found['high']:+.2f}]" if found["low"] is not None else f" (n = {found['n']})"
    return f"{found['mean']:+.2f}{interval}"
