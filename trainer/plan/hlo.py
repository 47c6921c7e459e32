"""A parser of compiled programs (XLA's HLO text): collectives and memory traffic.

The compiler's own figures count a loop's body once. This module counts every iteration.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
    "send",
)

_ARRAY = re.compile(r"\b(pred|[a-z]+[0-9]+[a-z0-9]*)\[([0-9,]*)\](?:\{([^{}]*)\})?")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|body|condition|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_GROUP = re.compile(r"replica_groups=(?:\{\{([0-9,]*)\}|\[\d+,(\d+)\])")

# Operations without traffic: they name existing arrays or run computations counted elsewhere.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "while",
    "conditional",
    "call",
    "opt-barrier",
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array of a program, on one device."""

    kind: str  # f32, bf16, u8, …
    sizes: tuple[int, ...]
    on_chip: bool = False  # in a TPU's vector memory, which causes no traffic

    @property
    def bytes(self) -> int:
        """The size in bytes. 4-bit types round up.

        >>> Shape("bf16", (2, 3)).bytes
        12
        """
        bits = 8 if self.kind == "pred" else int(re.findall(r"\d+", self.kind)[0])
        return -(-math.prod(self.sizes) * bits // 8)

    def __str__(self) -> str:
        return f"{self.kind}[{','.join(map(str, self.sizes))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    results: tuple[Shape, ...]
    operands: tuple[str, ...]  # names
    attributes: str
    is_root: bool


@dataclasses.dataclass(frozen=True)
class Collective:
    """An operation that sends arrays between devices."""

    kind: str  # one of COLLECTIVES
    operands: tuple[Shape, ...]  # on one device
    devices: int  # devices of its group
    times: int  # executions per step

    @property
    def bytes(self) -> int:
        """Bytes of one device's operands, per execution."""
        return sum(shape.bytes for shape in self.operands)

    @property
    def sent(self) -> float:
        """The minimum bytes that one device sends per execution, in a ring of n devices.

        >>> Collective("all-reduce", (Shape("f32", (100,)),), devices=4, times=1).sent
        600.0
        """
        others = (self.devices - 1) / self.devices
        if self.kind == "all-reduce":
            return 2 * self.bytes * others
        if self.kind == "all-gather":
            return float(self.bytes * (self.devices - 1))
        return self.bytes * (1.0 if "permute" in self.kind or self.kind == "send" else others)


class Program:
    """A parsed program. Raises ValueError if the text has no entry computation."""

    def __init__(self, text: str) -> None:
        partitions = re.search(r"^HloModule .*num_partitions=(\d+)", text)
        self._devices = int(partitions[1]) if partitions else 1
        self._computations: dict[str, dict[str, Instruction]] = {}
        entry = None
        for line in text.splitlines():
            if match := _COMPUTATION.match(line):
                current = self._computations.setdefault(match[2], {})
                entry = match[2] if match[1] else entry
            elif line.startswith("  ") and " = " in line:
                instruction = _instruction(line)
                current[instruction.name] = instruction
        if entry is None:
            raise ValueError("the program's text has no ENTRY computation")
        self._times = self._count(entry)

    def collectives(self) -> list[Collective]:
        """Return the collectives of a step, equal ones merged, largest first."""
        found: collections.Counter[Collective] = collections.Counter()
        for computation, times in self._times.items():
            for one in self._computations[computation].values():
                kind = one.opcode.removesuffix("-start")
                devices = self._group(one.attributes)
                if kind not in COLLECTIVES or devices == 1:
                    continue
                operands = tuple(self._given(computation, one))
                found[Collective(kind, operands, devices, 1)] += times
        listed = [dataclasses.replace(one, times=times) for one, times in found.items()]
        return sorted(listed, key=lambda one: one.bytes * one.times, reverse=True)

    def memory_traffic(self) -> int:
        """Return the bytes that a step reads from and writes to a device's memory.

        Each operation reads its operands and writes its result, but values inside a fusion do not
        count. If an operation uses only a slice of an array, the slice counts.
        """
        fused = {
            called
            for computation in self._computations.values()
            for one in computation.values()
            if one.opcode not in ("while", "conditional", "call", "async-start")
            for called in _CALLED.findall(one.attributes)
        }
        return sum(
            times * self._traffic(computation, one)
            for computation, times in self._times.items()
            if computation not in fused
            for one in self._computations[computation].values()
        )

    def _count(self, entry: str) -> dict[str, int]:
        """Return the executions of each computation in a step."""
        times: collections.Counter[str] = collections.Counter()

        def run(computation: str, often: int) -> None:
            times[computation] += often
            for one in self._computations[computation].values():
                trips = self._trips(one) if one.opcode == "while" else 1
                for called in _called(one.attributes):
                    run(called, often * trips)

        run(entry, 1)
        return times

    def _trips(self, loop: Instruction) -> int:
        """Return a loop's number of iterations. 1 if its end is not a constant."""
        if known := _TRIPS.search(loop.attributes):
            return int(known[1])
        # Programs for TPUs lack the trip count. JAX's loops count up from 0 to a constant.
        (condition,) = re.findall(r"condition=%?([\w.\-]+)", loop.attributes)
        inside = self._computations[condition]
        (root,) = (one for one in inside.values() if one.is_root)
        if root.opcode == "compare" and "direction=LT" in root.attributes:
            end = inside[root.operands[1]]
            if end.opcode == "constant":
                return int(end.attributes)
        return 1

    def _group(self, attributes: str) -> int:
        """Return the number of devices that take part in a collective."""
        if match := _GROUP.search(attributes):
            return int(match[2]) if match[2] else len(match[1].split(","))
        return self._devices

    def _given(self, computation: str, one: Instruction) -> Iterator[Shape]:
        """Yield the operands of a collective. A concatenation yields its parts.

        CUDA's compiler concatenates many gradients to sum them in one operation.
        """
        inside = self._computations[computation]
        for name in one.operands:
            yield from self._joined(inside[name]) or inside[name].results

    def _joined(self, one: Instruction) -> tuple[Shape, ...]:
        if one.opcode != "fusion" or len(one.results) != 1 or len(one.results[0].sizes) != 1:
            return ()
        inside = self._computations[_CALLED.findall(one.attributes)[0]]
        (root,) = (line for line in inside.values() if line.is_root)
        if root.opcode != "concatenate":
            return ()
        return tuple(shape for name in root.operands for shape in inside[name].results)

    def _operands(self, computation: str, one: Instruction) -> Iterator[Shape]:
        inside = self._computations[computation]
        for name in one.operands:
            yield from inside[name].results

    def _traffic(self, computation: str, one: Instruction) -> int:
        if one.opcode in _FREE or one.opcode.endswith("-done") or one.opcode == "async-start":
            return 0
        inside = self._computations[computation]
        given = [inside[name].results for name in one.operands]
        if one.opcode in ("dynamic-slice", "slice", "gather"):
            return 2 * _bytes(one.results)
        if one.opcode == "dynamic-update-slice":
            return 2 * _bytes(given[1])
        if one.opcode == "fusion":
            read, written = self._fused(_CALLED.findall(one.attributes)[0])
            return min(written, _bytes(one.results)) + sum(
                min(_bytes(shapes), read.get(place, 0)) for place, shapes in enumerate(given)
            )
        # The results of copy-start are the copy, its source and a flag: count the copy alone.
        results = one.results[:1] if one.opcode == "copy-start" else one.results
        return _bytes(results) + sum(map(_bytes, given))

    @functools.cache  # noqa: B019  # a program is read and dropped
    def _fused(self, computation: str) -> tuple[dict[int, int], int]:
        """Return the bytes that a fusion reads of each parameter, and those that it writes."""
        inside = self._computations[computation]
        users = collections.defaultdict(list)
        for one in inside.values():
            for place, name in enumerate(one.operands):
                users[name].append((one, place))

        def used(name: str) -> int:
            total = 0
            for one, place in users[name]:
                if one.opcode == "bitcast":
                    total += used(one.name)
                elif one.opcode == "fusion":
                    total += self._fused(_CALLED.findall(one.attributes)[0])[0].get(place, 0)
                elif one.opcode in ("dynamic-slice", "slice", "gather") and place == 0:
                    total += _bytes(one.results)
                elif one.opcode == "dynamic-update-slice" and place == 0:
                    continue  # updated in place
                else:
                    return _bytes(inside[name].results)
            return total

        read = {}
        for one in inside.values():
            if one.opcode == "parameter":
                read[int(one.attributes)] = used(one.name)
        (root,) = (one for one in inside.values() if one.is_root)
        roots = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
        return read, sum(self._written(inside, one) for one in roots)

    def _written(self, inside: dict[str, Instruction], root: Instruction) -> int:
        while root.opcode == "bitcast":
            root = inside[root.operands[0]]
        if root.opcode == "fusion":
            return self._fused(_CALLED.findall(root.attributes)[0])[1]
        if root.opcode == "dynamic-update-slice":
            return _bytes(inside[root.operands[1]].results)
        return _bytes(root.results)


def _instruction(line: str) -> Instruction:
    left, _, right = line.strip().partition(" = ")
    kind, right = _split(right) if right.startswith("(") else right.split(" ", 1)
    opcode, _, _ = right.strip().partition("(")
    operands, attributes = _split(right.strip()[len(opcode) :])
    if opcode in ("parameter", "constant"):
        attributes = operands[1:-1]  # a parameter's number or a constant's value
    return Instruction(
        name=left.removeprefix("ROOT ").removeprefix("%"),
        opcode=opcode,
        results=tuple(_shapes(kind)),
        operands=() if opcode in ("parameter", "constant") else tuple(_NAME.findall(operands)),
        attributes=attributes,
        is_root=left.startswith("ROOT "),
    )


def _split(text: str) -> tuple[str, str]:
    """Return the parenthesized beginning of a text, and the rest."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :]
    raise ValueError(f"unbalanced parentheses: {text[:80]}")


def _shapes(text: str) -> Iterator[Shape]:
    for kind, sizes, layout in _ARRAY.findall(text):
        yield Shape(kind, tuple(map(int, filter(None, sizes.split(",")))), "S(1)" in layout)


def _bytes(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.bytes for shape in shapes if not shape.on_chip)


def _called(attributes: str) -> Iterator[str]:
    yield from _CALLED.findall(attributes)
    for listed, named in _BRANCHES.findall(attributes):
        yield from (_NAME.findall(listed) if listed else [named])
