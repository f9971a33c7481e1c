"""Which GPUs a Slurm job held: its node list and trackable resources, beside the GPUs that are known.

Slurm says how many GPUs of which type a job held on all of its nodes, not which. A job that had all of
them held each whole; one that had some held, in expectation, that part of each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from flows.sources.runs.run import Gpus, KnownGpu
from transforms.constants import PPM

_MOST_HOSTS = 65_536
"""Nodes that a Slurm cluster can have (MAX_SLURM_NODES, slurm.h)."""
_NOT_ALLOCATED = ("", "None assigned", "(null)", "None")

_MIG = re.compile(
    r"(?i)^(?P<model>.*?)[_.:-]?(?:(?P<compute>[1-8])c\.)?(?<![0-9a-z])(?P<slices>[1-8])g"
    r"(?:\.[0-9]+gb(?:[+._-][a-z.+_-]+)?)?$"
)
"""Types of MIG instances: `a100_1g.5gb`, `nvidia_a100-3g.20gb`, `1g.10gb+me`, `1c.3g.20gb`."""
_MIG_SLICES = {
    4: ("a30", "rtxpro6000"),
    7: (
        "a100",
        "a800",
        "h100",
        "h800",
        "h200",
        "h20",
        "gh200",
        "b100",
        "b200",
        "b300",
        "gb200",
        "gb300",
    ),
}
"""Compute slices of a whole GPU (NVIDIA MIG User Guide, "Supported MIG Profiles")."""
_NO_MODEL_WORDS = {"nvidia", "amd", "gpu", "mig", "geforce", "tesla", "quadro", "graphics"}


@dataclass(frozen=True)
class GpuCounts:
    """GPUs in a text of trackable resources.

    Attributes:
        typed: Type as the site names it -> how many.
        untyped: GPUs beside them whose type is not told.
        has_parts: The job held shards or MPS of GPUs, whose size is not told.
    """

    typed: dict[str, int]
    untyped: int
    has_parts: bool

    @property
    def total(self) -> int:
        return sum(self.typed.values()) + self.untyped


@dataclass
class Held:
    """What a job held: the share of each GPU in ppm.

    Attributes:
        shares: UUID -> ppm.
        is_assumed: It held a part of several GPUs, and which of them is not told.
        foreign_types: Types that are no model known on the job's hosts, where there is but one.
    """

    shares: dict[str, int] = field(default_factory=dict)
    is_assumed: bool = False
    foreign_types: list[str] = field(default_factory=list)


class TooManyGpus(ValueError):
    """A job held more GPUs than are known on its hosts."""


def count_gpus(tres: str) -> GpuCounts:
    """Count the GPUs in a text of trackable resources: `gres/gpu=4,gres/gpu:a100=3`.

    Raises:
        ValueError: a count that is none, or types that add up to more than the total.
    """
    total, typed, has_parts = None, dict[str, int](), False
    for part in tres.split(","):
        name, _, value = part.strip().partition("=")
        kind, _, type_name = name.partition(":")
        if kind in ("gres/shard", "gres/mps"):
            has_parts = True
        if kind != "gres/gpu":
            continue
        if not re.fullmatch(r"[0-9]{1,9}", value):
            raise ValueError(f"{part[:60]!r} is no number of GPUs")
        if type_name:
            typed[type_name] = typed.get(type_name, 0) + int(value)
        else:
            total = int(value)
    typed = {name: count for name, count in typed.items() if count}
    known = sum(typed.values())
    if total is not None and total < known:
        raise ValueError(f"{total} GPUs in all, but {known} by type")
    return GpuCounts(typed, (total or known) - known, has_parts)


def expand_nodelist(nodelist: str) -> list[str]:
    """The hosts of a Slurm node list: `n[01-03,7],gpu2-[a,b]` and the like.

    Raises:
        ValueError: it cannot be understood, or names more hosts than a cluster has.
    """
    if nodelist.strip() in _NOT_ALLOCATED:
        return []
    if not re.fullmatch(r"(?:[^\[\]]|\[[^\[\]]+\])+", nodelist):
        raise ValueError("the node list has a bracket without its other")
    hosts: list[str] = []
    # Split at commas outside of brackets.
    for entry in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist):
        parts = re.split(r"\[([^\]]*)\]", entry.strip())
        choices: list[list[str]] = []
        count = 1
        for place, part in enumerate(parts):
            choices.append(_expand_range(part) if place % 2 else [part])
            count *= len(choices[-1])
            if count + len(hosts) > _MOST_HOSTS:
                raise ValueError(_TOO_LONG)
        hosts += ["".join(choice) for choice in product(*choices)]
    return list(dict.fromkeys(hosts))


_TOO_LONG = f"the node list names more than {_MOST_HOSTS:,} hosts"


def _expand_range(text: str) -> list[str]:
    """What is between brackets: `01-03,7` -> 01, 02, 03, 7."""
    names: list[str] = []
    for part in text.split(","):
        span = re.fullmatch(r"([0-9]{1,12})-([0-9]{1,12})", part)
        if span is None:
            if not re.fullmatch(r"\w+", part):
                raise ValueError(f"the node list has the range {part[:40]!r}")
            names.append(part)
            continue
        first, last = int(span[1]), int(span[2])
        if last < first:
            raise ValueError(f"the node list has the range {part[:40]!r}")
        if last - first >= _MOST_HOSTS - len(names):
            raise ValueError(_TOO_LONG)
        names += [f"{n:0{len(span[1])}d}" for n in range(first, last + 1)]
    return names


def divide_gpus(counts: GpuCounts, by_host: Mapping[str, Sequence[KnownGpu]]) -> Held:
    """Divide what a job held over the GPUs of its hosts.

    Types that name a model choose the GPUs of that model. Among hosts, GPUs are divided as evenly as
    their numbers allow, as Slurm does.

    Args:
        counts: What it held.
        by_host: Its hosts, each with all of its GPUs.

    Raises:
        TooManyGpus: more than the hosts have.
        ValueError: a type that is no model of these hosts, or a MIG profile that does not fit them.
    """
    held = Held()
    every = [gpu for gpus in by_host.values() for gpu in gpus]
    matched: set[str] = set()
    for type_name, count in counts.typed.items():
        mig = _MIG.match(type_name)
        model_name = mig["model"] if mig else type_name
        chosen = _choose_by_type(type_name, model_name, every, held)
        matched |= chosen
        slices = int(mig["compute"] or mig["slices"]) if mig else 0
        _take(held, count, by_host, chosen, type_name, (slices, model_name))
    if counts.untyped:
        others = {gpu.gpu_uuid for gpu in every} - matched
        _take(held, counts.untyped, by_host, others or {gpu.gpu_uuid for gpu in every}, "GPU")
    if any(share > PPM for share in held.shares.values()):
        raise TooManyGpus(f"the job held {counts.total} GPUs, more than are known on its hosts")
    return held


def _choose_by_type(
    type_name: str, model_name: str, every: Sequence[KnownGpu], held: Held
) -> set[str]:
    """UUIDs of the GPUs that a type means."""
    if not _split_words(model_name):
        return {gpu.gpu_uuid for gpu in every}
    chosen = {gpu.gpu_uuid for gpu in every if gpu.model and is_model(model_name, gpu.model)}
    if chosen:
        return chosen
    models = sorted({gpu.model or "unknown" for gpu in every})
    if len(models) > 1:
        raise ValueError(
            f"the type {type_name!r} is none of the models that its hosts have ({', '.join(models)})"
        )
    # All GPUs are alike, so their type is only the site's name for them.
    held.foreign_types.append(f"{type_name} ({models[0]})")
    return {gpu.gpu_uuid for gpu in every}


def is_model(type_name: str, model: str) -> bool:
    """Whether a type of Slurm (`a100`, `rtx3090`, `a100-sxm4-80gb`) names a model (`NVIDIA A100-SXM4-80GB`).

    Whole words count: A10 is no A100, and no A10G.
    """
    wanted, words = _split_words(type_name), _split_words(model)
    joined = {
        "".join(words[first:last])
        for first in range(len(words))
        for last in range(first + 1, len(words) + 1)
    }
    return bool(wanted) and ("".join(wanted) in joined or all(word in words for word in wanted))


def _split_words(text: str) -> list[str]:
    """The words of a model's name, without makers and families."""
    words = [
        re.sub(r"^([0-9]+)gb?$", r"\1gb", word) for word in re.split(r"[^a-z0-9]+", text.lower())
    ]
    return [word for word in words if word and word not in _NO_MODEL_WORDS]


def _count_slices(model: str) -> int:
    """Compute slices of a whole GPU.

    Raises:
        ValueError: not known.
    """
    for count, names in _MIG_SLICES.items():
        if any(is_model(name, model) for name in names):
            return count
    raise ValueError(
        f"how many slices MIG cuts of a {model or 'GPU of an unknown model'!r} is not known"
    )


def _take(
    held: Held,
    count: int,
    by_host: Mapping[str, Sequence[KnownGpu]],
    chosen: set[str],
    type_name: str,
    mig: tuple[int, str] = (0, ""),
) -> None:
    """Add `count` GPUs, or MIG instances of so many slices, to what a job held of the chosen GPUs."""
    slices, model_name = mig
    groups = {host: [g for g in gpus if g.gpu_uuid in chosen] for host, gpus in by_host.items()}
    of_gpu = {
        host: _count_slices(gpus[0].model or model_name) if slices else 1
        for host, gpus in groups.items()
        if gpus
    }
    size = slices or 1
    room = {host: len(groups[host]) * (whole // size) for host, whole in of_gpu.items()}
    if count > sum(room.values()):
        raise TooManyGpus(
            f"the job held {count} of {type_name!r}, and on its hosts there is room for "
            f"{sum(room.values())}"
        )
    for host, taken in _divide_evenly(count, room).items():
        gpus = groups[host]
        share = taken * size * PPM // (of_gpu[host] * len(gpus))
        if len(gpus) > 1 and taken < room[host]:
            held.is_assumed = True
        for gpu in gpus:
            held.shares[gpu.gpu_uuid] = held.shares.get(gpu.gpu_uuid, 0) + share


def _divide_evenly(count: int, room: Mapping[str, int]) -> dict[str, int]:
    """Divide a number among hosts as evenly as their room allows; the first ones get what is over."""
    taken = dict.fromkeys(room, 0)
    open_hosts = [host for host, free in room.items() if free]
    while count and open_hosts:
        each = max(1, count // len(open_hosts))
        for host in open_hosts:
            more = min(each, room[host] - taken[host], count)
            taken[host] += more
            count -= more
        open_hosts = [host for host in open_hosts if taken[host] < room[host]]
    return {host: number for host, number in taken.items() if number}


def find_hosts(gpus: Gpus, nodelist: str) -> tuple[dict[str, list[KnownGpu]], list[str]]:
    """The hosts of a node list with their GPUs, and those without known GPUs.

    Raises:
        ValueError: the node list cannot be understood.
    """
    by_host = {host: gpus.list_of_host(host) for host in expand_nodelist(nodelist)}
    return by_host, [host for host, known in by_host.items() if not known]
