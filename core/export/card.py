"""The model card: what the student is, how good it is beside its teacher, how it was made, and the lines that load it."""

from collections.abc import Iterator, Mapping

from core.events import Curve
from core.export import Facts


def card(facts: Facts, measured: Mapping[str, float], versions: Mapping[str, str]) -> str:
    """Markdown. `measured` holds the student's "parameters" and "bytes"; every figure comes with its n, seed, versions and hardware."""
    shape = ", ".join(str(extent) for extent in facts.family.input)
    low, high = facts.range
    rows = [_row("student", {**facts.test, **measured})]
    if facts.teacher is not None:
        rows.insert(0, _row("teacher", facts.teacher))
    return _PAGE.format(
        name=_line(facts.name),
        family=facts.family.family,
        classes=facts.family.classes,
        rows="\n".join(rows),
        measured="".join([_boundary(facts.test), *_curves(facts)]),
        made=_made(facts),
        seed=facts.seed,
        hardware=_line(facts.hardware),
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        load=_load(facts),
        takes=f"float32, shape (batch, {shape}), values in [{low:g}, {high:g}]",
    )


def _row(who: str, values: Mapping[str, float]) -> str:
    accuracy = f"{100 * values['accuracy']:.2f} %" if "accuracy" in values else "not measured"
    counts = (f"{int(values[name]):,}" if name in values else "" for name in ("n", "parameters", "bytes"))
    return f"| {who} | {accuracy} | {' | '.join(counts)} |"


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
    names = [_line(str(method.get("name", ""))) for method in facts.spec.get("methods", ())]
    how = f"distilled with {' + '.join(names)}" if names else "trained on the labels alone, without a teacher"
    chosen, total = facts.spec.get("dataset", {}).get("classes"), facts.family.classes
    some = f"{len(chosen or ())} of the {total} classes alone: the figures take no other output for an answer"
    return (
        f"The student was {how}, {facts.epochs} epochs in all; `provenance.json` has the whole job spec. It was trained and tested on "
        f"{some if chosen else f'all {total} classes'}."
    )


def _load(facts: Facts) -> str:
    if facts.normalization is None:
        return "logits = network(x)"
    tail = ".view(-1, 1, 1)" if len(facts.family.input) == 3 else ""
    mean, std = (f"torch.tensor({list(facts.normalization[name])}){tail}" for name in ("mean", "std"))
    return f"logits = network((x - {mean}) / {std})"


def _line(text: str) -> str:
    """Text that a user wrote, as one line that is no markup."""
    return " ".join("".join(c if c.isalnum() or c in " .,:;+-_=()/%" else " " for c in text).split())


_MEASURES = {
    "fgsm": ("Test accuracy (%) when each value of a sample is moved by epsilon against the network (FGSM):", "epsilon, data units"),
    "parameter_noise": ("Test accuracy (%) with Gaussian noise of deviation epsilon on every parameter:", "epsilon"),
}

_PAGE = """# {name}

A `{family}` network for {classes} classes, made with Retort.

| | test accuracy | images | parameters | bytes |
|---|---:|---:|---:|---:|
{rows}

The figures are those of the last epoch, on the test split, which was read once. {made}
Seed {seed}; {hardware}; {versions}. One seed says little about another.
{measured}
## Load it

It needs PyTorch and safetensors; `network.py` lies beside this file.

```python
import torch
from safetensors.torch import load_file
from network import build
network = build().eval()
network.load_state_dict(load_file("model.safetensors"))
{load}
```

`x` is {takes}. `config.json` names the classes in the order of the logits; `sha256sum -c SHA256SUMS` checks the files.
"""
