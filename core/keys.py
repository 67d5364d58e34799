"""Match the tensors of a file with those of an architecture, by name: usual prefixes stripped, rules applied, the rest listed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from core.errors import Refused

Shape = tuple[int, ...]

_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel, AveragedModel and torch.compile put before every name."""
_AVERAGED = "n_averaged"
"""What AveragedModel keeps beside its module: how many models it has averaged, and no weight."""
_COUNTER = "num_batches_tracked"
"""What batch norm counts and eval mode never reads; files of other tools lack it."""
_TRIED = 10


@dataclass(frozen=True, slots=True)
class Matching:
    """Which tensor of a file is which of an architecture.

    `names` is {name in the architecture: name in the file}; `stripped` are the prefixes that every name had, outermost first; `renamed`
    says how many names the rules changed; `filled` are counters that the file lacks, which begin at 0.
    """

    names: Mapping[str, str]
    stripped: tuple[str, ...] = ()
    renamed: int = 0
    filled: tuple[str, ...] = ()

    @property
    def is_changed(self) -> bool:
        """Whether the file would have to be written anew to hold exactly the architecture's names."""
        return bool(self.stripped or self.renamed or self.filled)

    def to_json(self) -> dict[str, Any]:
        """For the report of an inspection."""
        return {"stripped": list(self.stripped), "renamed": self.renamed, "filled": len(self.filled)}


def matched(found: Mapping[str, Shape], expected: Mapping[str, Shape], rename: Mapping[str, str], *, where: str) -> Matching:
    """Match the names and shapes of a file with those of an architecture.

    `rename` is {prefix: what stands in its place}: literal, of several that fit the longest, once for each name, after the usual prefixes
    were stripped. Raises Refused at `where` where names or shapes are left over on either side, all of them named with the nearest, and at
    /weights/rename for a rule that fits no name, or makes two names one.
    """
    names, stripped = {name: name for name in found}, tuple[str, ...]()
    if rename or found.keys() != expected.keys():
        names, stripped = _stripped(found, expected)
    ruled = _ruled(names, rename)
    renamed = sum(new != old for new, old in zip(ruled, names, strict=True))
    shapes = {name: found[original] for name, original in ruled.items()}
    filled = tuple(name for name, shape in expected.items() if name.rpartition(".")[2] == _COUNTER and shape == () and name not in shapes)
    _refuse_left_over(shapes, {name: shape for name, shape in expected.items() if name not in filled}, where)
    return Matching({name: ruled[name] for name in expected if name in ruled}, stripped, renamed, filled)


def _stripped(found: Iterable[str], expected: Mapping[str, Shape]) -> tuple[dict[str, str], tuple[str, ...]]:
    """{name without the prefixes that all have: name}, and those prefixes."""
    names = {name: name for name in found if name != _AVERAGED or _AVERAGED in expected}
    stripped: tuple[str, ...] = ()
    while prefix := next((each for each in _PREFIXES if names and all(name.startswith(each) for name in names)), None):
        names = {name.removeprefix(prefix): original for name, original in names.items()}
        stripped += (prefix,)
    return names, stripped


def _ruled(names: Mapping[str, str], rename: Mapping[str, str]) -> dict[str, str]:
    rules = sorted(rename, key=len, reverse=True)
    unused, ruled = set(rules), dict[str, str]()
    for name, original in names.items():
        rule = next((each for each in rules if name.startswith(each)), None)
        new = name if rule is None else rename[rule] + name.removeprefix(rule)
        unused.discard("" if rule is None else rule)
        if new in ruled:
            reason = f'the rules make one name of "{ruled[new]}" and "{original}": "{new}"'
            raise Refused("/weights/rename", reason, hint="leave one of the two prefixes out, or give them different names")
        ruled[new] = original
    if unused:
        first = next(rule for rule in rules if rule in unused)
        near = get_close_matches(first, sorted({name.partition(".")[0] + "." for name in names}), n=3, cutoff=0.0)
        raise Refused("/weights/rename", f'no tensor\'s name begins with "{first}"', hint=f"names begin with {', '.join(near)}")
    return ruled


def _refuse_left_over(found: Mapping[str, Shape], expected: Mapping[str, Shape], where: str) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    wrong = [
        f"{name} has shape {list(found[name])}, the architecture {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != tuple(shape)
    ]
    parts = []
    if missing:
        parts.append("missing: " + _listed([_with_nearest(name, unexpected, "the file has") for name in missing]))
    if unexpected:
        parts.append(
            "unexpected: " + _listed([_with_nearest(name, missing or list(expected), "the architecture has") for name in unexpected])
        )
    if wrong:
        parts.append("wrong shape: " + _listed(wrong))
    if parts:
        hint = "the file must hold the state dict of exactly this architecture"
        if rule := _mending({name: found[name] for name in unexpected}, {name: expected[name] for name in missing}):
            hint = f'"weights": {{"rename": {{"{rule[0]}": "{rule[1]}"}}}} would mend {rule[2]} of {len(missing)} names'
        raise Refused(where, "the weights do not fit the architecture; " + "; ".join(parts), hint=hint)


def _mending(unexpected: Mapping[str, Shape], missing: Mapping[str, Shape]) -> tuple[str, str, int] | None:
    """The one rule that mends at least half of the missing names, and how many; None where there is none."""
    rules: dict[tuple[str, str], int] = {}
    for theirs in list(unexpected)[:_TRIED]:
        for ours in missing:
            if unexpected[theirs] == missing[ours] and (rule := _rule(theirs, ours)):
                rules.setdefault(rule, 0)
    for old, new in list(rules)[: _TRIED * _TRIED]:
        renamed = ((new + name.removeprefix(old), shape) for name, shape in unexpected.items() if name.startswith(old))
        rules[old, new] = sum(missing.get(name) == shape for name, shape in renamed)
    best = max(rules, key=lambda rule: (rules[rule], -len(rule[0])), default=None)
    return (*best, rules[best]) if best and rules[best] * 2 >= len(missing) and rules[best] > 1 else None


def _rule(theirs: str, ours: str) -> tuple[str, str] | None:
    """The two prefixes that are left when the parts that both names end with are taken away; None where they end differently."""
    old, new = theirs.split("."), ours.split(".")
    if old[-1] != new[-1]:
        return None
    while old and new and old[-1] == new[-1]:
        old.pop()
        new.pop()
    return "".join(f"{part}." for part in old), "".join(f"{part}." for part in new)


def _with_nearest(name: str, others: list[str], what: str) -> str:
    near = get_close_matches(name, others, n=1, cutoff=0.6) if len(others) <= 2000 else []
    return f"{name} ({what} {near[0]})" if near else name


def _listed(items: list[str], most: int = 8) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
