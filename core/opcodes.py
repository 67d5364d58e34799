"""A pickle looked through before anything opens it: its opcodes are counted, and followed as far as the sizes of what they would build.

Torch's reader of weights calls nothing that is not harmless, but it can be kept busy for years: by a tuple that holds another twice, which
holds another twice, and so on, as a key of a dictionary; or ended by one so deep that its hash overflows the stack.
"""

import pickletools
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any, NamedTuple

MOST = 1_000_000
"""Opcodes in one file. A tensor takes about 45."""
_DEEPEST = 100
_LONGEST_NAME = 300
_REPEATED = 1 << 24
_ADDS = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
_TAKES = frozenset({"GET", "BINGET", "LONG_BINGET"})
_KEEPS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})


class _Thing(NamedTuple):
    """What an opcode leaves on the stack: how many things it is, counted as often as they are met, and how deep they nest."""

    size: int
    depth: int


_ATOM, _MARK = _Thing(1, 0), _Thing(0, 0)


def check_opcodes(data: bytes, pickles: int) -> None:
    """Look through so many pickles, one after another. Raises ValueError, for people, for what is too much to open or is no pickle."""
    stream, left = BytesIO(data), MOST
    for _ in range(pickles):
        left -= _followed(pickletools.genops(stream), left)


def _followed(opcodes: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]], most: int) -> int:
    stack, memo, count, repeated = list[_Thing](), dict[int, _Thing](), 0, 0
    for opcode, argument, _ in opcodes:
        count += 1
        if count > most:
            raise ValueError(f"its pickle has more than {MOST:,} opcodes")
        if opcode.name in _TAKES:
            stack.append(memo.get(int(argument), _ATOM))
            repeated += stack[-1].size
        elif opcode.name in _KEEPS:
            memo[len(memo) if argument is None else int(argument)] = stack[-1] if stack else _ATOM
        elif opcode.name == "DUP":
            stack.append(stack[-1] if stack else _ATOM)
            repeated += stack[-1].size
        else:
            if opcode.name in ("GLOBAL", "INST") and len(argument) > _LONGEST_NAME:
                raise ValueError("its pickle holds a name that is none")
            stack += _left(opcode, list(_taken(opcode, stack)))
        if stack and stack[-1].depth > _DEEPEST:
            raise ValueError(f"its pickle nests deeper than {_DEEPEST} levels")
        if repeated > _REPEATED:
            raise ValueError("its pickle builds a few things over and over, into far more than its size")
    return count


def _taken(opcode: pickletools.OpcodeInfo, stack: list[_Thing]) -> Iterator[_Thing]:
    """What an opcode takes off the stack, the last first."""
    for kind in reversed(opcode.stack_before):
        if kind is pickletools.stackslice:
            while stack and stack[-1] is not _MARK:
                yield stack.pop()
        elif stack:
            yield stack.pop()


def _left(opcode: pickletools.OpcodeInfo, taken: list[_Thing]) -> list[_Thing]:
    """What it leaves there."""
    if opcode.name == "MARK":
        return [_MARK]
    if not opcode.stack_after or not taken:
        return [_ATOM] * len(opcode.stack_after)
    size = 1 + sum(each.size for each in taken)
    if opcode.name in _ADDS:  # to the first of what is taken, which does not become deeper by a second addition
        *added, first = taken
        return [_Thing(size, max([first.depth, *(each.depth + 1 for each in added)]))]
    return [_Thing(size, 1 + max(each.depth for each in taken))]
