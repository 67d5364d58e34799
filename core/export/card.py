"""The model card: what the student is and how good beside its teacher, how it was made, its files, the lines that load them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.events import Curve
from core.export import Facts, formats

Latency = Sequence[Mapping[str, float]]


def card(
    facts: Facts, exports: Sequence[Mapping[str, Any]], versions: Mapping[str, str], *, threads: int, teacher: Latency | None = None
) -> str:
    """Markdown with the front matter of the Hub. `exports` are {"format", "refused", "facts"}, `teacher` is the teacher's latency; every
    figure comes with its n, seed, versions and hardware."""
    shape = ", ".join(str(extent) for extent in facts.family.input)
    low, high = facts.range
    offered = [each for each in exports if each["refused"] is None]
    return _PAGE.format(
        front=_front(facts),
        name=_line(facts.name) or f"A {facts.family.family} of Retort",
        family=facts.family.family,
        classes=facts.family.classes,
        rows="\n".join(_rows(facts, offered)),
        gain=_gained(facts),
        measured="".join([_agreement(facts.test), _boundary(facts.test), *_curves(facts)]),
        made=_made(facts),
        seed=facts.seed,
        hardware=_line(facts.hardware),
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        files=_files(offered, [each for each in exports if each["refused"] is not None], teacher),
        load="\n".join(_loads(facts, offered, threads)),
        takes=f"float32, shape (batch, {shape}), values in [{low:g}, {high:g}]{'' if len(facts.family.input) == 3 else _ORDER}",
        normalised=_NOT_NORMALISED if facts.normalization is None else _NORMALISED,
        limits="\n".join(f"- {limit}" for limit in _limits(facts)),
    )


def gain(facts: Facts) -> float | None:
    """The student's accuracy less that of the same student without a teacher; None where either is not known."""
    if facts.baseline is None or facts.baseline.get("accuracy") is None or "accuracy" not in facts.test:
        return None
    return float(facts.test["accuracy"] - facts.baseline["accuracy"])


def _front(facts: Facts) -> str:
    """The Hub's front matter as YAML, whose strings may be JSON's. The licence is for a person to state."""
    methods = [str(method.get("name", "")) for method in facts.spec.get("methods", ())]
    kind = "image" if len(facts.family.input) == 3 else "tabular"
    tags = list(dict.fromkeys(["retort", *(["knowledge-distillation"] if methods else []), facts.family.family, *methods]))
    lines = ["library_name: pytorch", f"pipeline_tag: {kind}-classification", f"tags: {json.dumps(tags)}"]
    lines += ["metrics: [accuracy]"] if "accuracy" in facts.test else []
    return "\n".join(["# license: state it here", *lines])


def _rows(facts: Facts, offered: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    size = next((each["facts"]["bytes"] for each in offered if each["format"] == "safetensors"), None)
    if facts.teacher is not None:
        yield _row("teacher", facts.teacher)
    yield _row("student", {**facts.test, "parameters": facts.parameters, "flops": facts.flops, "bytes": size})
    if facts.baseline is not None:
        yield _row("the same without a teacher", facts.baseline)


def _row(who: str, values: Mapping[str, Any]) -> str:
    counts = (f"{int(values[name]):,}" if values.get(name) is not None else "" for name in ("n", "parameters", "flops", "bytes"))
    return f"| {who} | {_percent(values.get('accuracy'))} | {' | '.join(counts)} |"


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.2f} %"


def _gained(facts: Facts) -> str:
    if not facts.spec.get("methods"):
        return "This is the baseline itself: no teacher taught it."
    if "accuracy" not in facts.test:
        return "The data has no labels: the student learnt from the teacher's answers alone, and without a teacher there is no baseline."
    gained = gain(facts)
    if gained is None:
        return (
            "Whether the teacher helped is not known: the same student was not trained without one. `POST /v1/jobs/{id}/baseline`, or "
            "`--baseline` when one submits, trains it; a job submitted after that, or a further format of this one, says the gain."
        )
    assert facts.baseline is not None
    of = f"job {_line(str(facts.baseline.get('job', '')))}, seed {facts.baseline.get('seed')}, {facts.baseline.get('n')} inputs"
    word = "gain" if gained > 0 else "no gain"
    return (
        f"**{word}: {100 * gained:+.2f} points** against the same student, data and epochs without a teacher ({of}). One seed each: "
        "the difference of two seeds of one job can be as large."
    )


def _curves(facts: Facts) -> Iterator[str]:
    """A table for each measure that is a curve: epsilon across, a line for the student and one for the teacher."""
    for name, (title, axis) in _MEASURES.items():
        sides = {who: found[name] for who, found in facts.curves.items() if name in found}
        if not sides:
            continue
        epsilons = next(iter(sides.values()))["epsilon"]
        lines = [f"| {axis} | {' | '.join(f'{epsilon:g}' for epsilon in epsilons)} |", f"|---|{'---:|' * len(epsilons)}"]
        lines += [f"| {who} | {' | '.join(_percents(curve))} |" for who, curve in sides.items()]
        yield f"\n{title}\n\n" + "\n".join(lines) + "\n"


def _percents(curve: Curve) -> list[str]:
    means, deviations = (["" if value is None else f"{100 * value:.2f}" for value in curve.get(name, ())] for name in ("accuracy", "sd"))
    return [f"{mean} ± {deviation}" for mean, deviation in zip(means, deviations, strict=True)] if deviations else means


def _agreement(test: Mapping[str, float]) -> str:
    """How often the student answers as its teacher, as a paragraph; nothing where it was not asked for."""
    if "agreement" not in test:
        return ""
    on = f"{100 * test['agreement']:.2f} % of {int(test['n']):,} test inputs"
    return f"\nThe student gives the teacher's top-1 class on {on}; two logits differ by at most {test['max_abs_diff']:.3g}.\n"


def _boundary(test: Mapping[str, float]) -> str:
    """What is known of the decision boundary beside the teacher's, as a paragraph; nothing where it was not asked for."""
    if "boundary_tried" not in test:
        return ""
    pairs = f"{int(test['boundary_pairs'])} of {int(test['boundary_tried'])} samples"
    found = f"MagSim {test['magsim']:.3f}, AngSim {test['angsim']:.3f}" if "magsim" in test else "nothing to compare"
    return (
        f"\nThe decision boundary beside the teacher's: {found}, where both attacks reached it, which is on {pairs}. The published "
        "definition of the two is not known to us: this is our reconstruction.\n"
    )


def _made(facts: Facts) -> str:
    methods = [_method(method) for method in facts.spec.get("methods", ())]
    how = f"distilled with {' + '.join(methods)}" if methods else "trained on the labels alone, without a teacher"
    data = facts.spec.get("dataset", {})
    chosen, total = data.get("classes"), facts.family.classes
    some = f"{len(chosen or ())} of the {total} classes alone: the figures take no other output for an answer"
    which = "data without labels" if "accuracy" not in facts.test else some if chosen else f"all {total} classes"
    teacher = facts.spec.get("teacher")
    sources = " and ".join(f"the {what} `{_line(str(said))}`" for what, said in (("teacher", teacher), ("dataset", data.get("id"))) if said)
    return (
        f"The student was {how}, {facts.epochs} epochs in all{f', from {sources}' if sources else ''}; `provenance.json` has the whole job "
        f"spec and the digest of everything that went in. It was trained and tested on {which}."
    )


def _method(method: Mapping[str, Any]) -> str:
    """A method with its parameters, as one line."""
    said = {name: value for name, value in method.items() if name != "name" and isinstance(value, (bool, int, float, str))}
    parameters = ", ".join(f"{name}={value}" for name, value in said.items())
    return _line(str(method.get("name", "")) + (f" ({parameters})" if parameters else ""))


def _files(offered: Sequence[Mapping[str, Any]], refused: Sequence[Mapping[str, Any]], teacher: Latency | None) -> str:
    if not offered and not refused:
        return "No file was asked for.\n"
    lines = [_FILES]
    for each in offered:
        facts = each["facts"]
        accuracy = _percent(facts.get("accuracy"))
        apart = f"{100 * facts['top1_agreement']:.2f} % of {facts['compared']:,} | {facts['max_abs_diff']:.2g}"
        lines.append(f"| `{facts['file']}` | {facts['bytes']:,} | {accuracy} | {apart} | {_latencies(facts['latency'])} |")
    if teacher:
        lines.append(f"| the teacher | | | | | {_latencies(teacher)} |")
    threads = {each["facts"]["threads"] for each in offered}
    n = {int(row["n"]) for each in offered for row in each["facts"]["latency"]}
    if threads:
        calls = " to ".join(map(str, sorted({min(n), max(n)})))
        lines.append(
            f"\nEach file was loaded in a fresh process by the lines below, on the CPU, threads: {' or '.join(map(str, sorted(threads)))}, "
            f"and compared with the trained student on test inputs; times are of {calls} calls after a warmup.\n"
        )
    for each in refused:
        lines.append(f"`{each['format']}` is not offered: {_line(each['refused'])}.\n")
    return "\n".join(lines)


def _latencies(rows: Latency) -> str:
    return " | ".join(f"{row['p50_ms']:.3g} / {row['p95_ms']:.3g}" for row in rows)


def _loads(facts: Facts, offered: Sequence[Mapping[str, Any]], threads: int) -> Iterator[str]:
    for each in offered:
        form = formats()[each["format"]]
        array = "a torch tensor" if form.takes == "torch" else "a numpy array"
        warning = f"\nTake care: {form.warning}.\n" if form.warning else ""
        lines = form.lines(facts.family, facts.normalization, threads)
        builds = "network.py" in form.files and facts.family.needs
        more = f" `network.py` needs {' and '.join(builds)} beside PyTorch." if builds else ""
        yield f"### {each['format']}\n{warning}\n`x` is {array}.{more}\n\n```python\n{lines}```\n"


def _limits(facts: Facts) -> Iterator[str]:
    yield "One seed: another would give other figures, and how far apart they lie was not measured."
    yield "The test split is of the same source as the training data; other data may be answered much worse."
    if not {"fgsm", "parameter_noise"} & {name for found in facts.curves.values() for name in found}:
        yield "Robustness was not measured."
    yield "Calibration of the probabilities, and fairness between groups, were not measured."
    if "accuracy" not in facts.test:
        yield "The data has no labels: what is known is how often the student answers as its teacher does, not how often it is right."


def _line(text: str) -> str:
    """Text that a user wrote, as one line that is no markup."""
    return " ".join("".join(c if c.isalnum() or c in " .,:;+-_=()/%" else " " for c in text).split())


_MEASURES = {
    "fgsm": ("Test accuracy (%) when each value of a sample is moved by epsilon against the network (FGSM):", "epsilon, data units"),
    "parameter_noise": ("Test accuracy (%) with Gaussian noise of deviation epsilon on every parameter:", "epsilon"),
}

_FILES = """| file | bytes | test accuracy | same top-1 as the student | largest difference | ms at batch 1, p50 / p95 | at batch 32 |
|---|---:|---:|---:|---:|---:|---:|"""

_ORDER = ", the features in the order of the dataset's columns"
_NORMALISED = "The lines for safetensors normalise it; the other files hold their normalisation, and take it as it is."
_NOT_NORMALISED = "This network was trained on such values as they are: nothing is normalised, here or in the files."

_PAGE = """---
{front}
---

# {name}

A `{family}` network for {classes} classes, made with Retort.

| | test accuracy | inputs | parameters | FLOPs an input | bytes |
|---|---:|---:|---:|---:|---:|
{rows}

{gain}

The figures are those of the last epoch, on the test split, which was read once. {made}
Seed {seed}; {hardware}; {versions}. One seed says little about another.
{measured}
## Files

{files}
## Load it

`x` is {takes}. {normalised} `config.json` names the
classes in the order of the logits; `sha256sum -c SHA256SUMS` checks the files.

{load}
## Limits

{limits}
"""
