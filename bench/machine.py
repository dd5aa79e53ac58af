"""What a figure was measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

RESULTS = Path(__file__).parent / "results"
T = TypeVar("T")
_VECTORS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}


def device() -> str:
    """Where benchmarks of models run: `cuda` if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def describe(device: str = "cpu") -> str:
    """The machine's name for a line of JSON: its processor, or its GPU."""
    if device == "cuda":
        import torch

        return f"{torch.cuda.get_device_name()}, torch {torch.__version__.partition('+')[0]}"
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def peak_gib(device: str = "cpu") -> float:
    """Most memory that this process has held, GiB: the GPU's, if it used one."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**30
    # ru_maxrss is in KiB on Linux and in bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def save(name: str, case: str, line: dict[str, Any]) -> Path:
    """Keeps bench/results/NAME-CASE-MACHINE.json, in place of an earlier one of the same `line["machine"]`."""
    machine = re.sub(r"[^a-z0-9]+", "-", str(line["machine"]).lower()).strip("-")
    path = RESULTS / f"{name}-{case}-{machine}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(line, indent=2) + "\n")
    return path


def results(name: str) -> list[dict[str, Any]]:
    """What `save` has kept under this name, by case and machine."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{name}-*.json"))]


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of docs/performance.md."""
    lines = [header, tuple("---" if index == 0 else "---:" for index in range(len(header))), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"


def matmul_flops(
    size: int = 2048, seconds: float = 2.0, *, setting: str = "highest", device: str = "cpu", dtype: str = "float32"
) -> float:
    """FLOP/s of torch's square matrix product: the best of repeated products within `seconds`.

    `setting` is torch's float32 matmul precision (stages/influence/matmul.py says what `medium` is on a CPU).
    """
    return 2 * size**3 / min(_products(size, seconds, setting, device, dtype))


@cache
def fp32_setting(device: str) -> str:
    """Under which of torch's settings fp32 products are fastest: on a CPU oneDNN's are fp32 under any."""
    return "highest" if device == "cuda" else max(("highest", "medium"), key=lambda each: matmul_flops(setting=each))


@dataclass(frozen=True)
class Beside:
    """Calls timed between spells of matrix products: a shared machine's rate wanders by a fifth in minutes.

    Attributes:
        seconds: the calls'.
        rate: FLOP/s of the products before and after each (all of them, not the best), weighted by the calls' seconds.
    """

    seconds: float
    rate: float

    def share(self, flops: float) -> float:
        """Of the calls' time, what `flops` operations take at that rate."""
        return flops / self.rate / self.seconds

    def times_faster(self, other: Beside) -> float:
        """The other's seconds by these, had the machine been as fast beside it as it was beside these."""
        return other.seconds * other.rate / (self.seconds * self.rate)

    def __add__(self, other: Beside) -> Beside:
        seconds = self.seconds + other.seconds
        return Beside(seconds, (self.seconds * self.rate + other.seconds * other.rate) / seconds)

    def __mul__(self, times: float) -> Beside:
        return Beside(self.seconds * times, self.rate)


def timed_beside(call: Callable[[], Any], device: str, setting: str, spell: float = 0.4) -> Beside:
    """Times a call, and fp32 products under torch's `setting` before and after it."""
    size = 8192 if device == "cuda" else 2048
    before = _products(size, spell, setting, device, "float32")
    _, seconds = timed(call)
    products = before + _products(size, spell, setting, device, "float32")
    return Beside(seconds, 2 * size**3 * len(products) / sum(products))


def _products(size: int, seconds: float, setting: str, device: str, dtype: str) -> list[float]:
    """Seconds of square products, one after the other for so long and at least one, after one that does not count."""
    import torch

    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    out = a @ b
    found: list[float] = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        found.append(timed(lambda: torch.mm(a, b, out=out))[1])
    torch.set_float32_matmul_precision(usual)
    return found


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """(what the call returns, its seconds); a GPU is waited for before and after."""
    _wait()
    started = time.perf_counter()
    result = call()
    _wait()
    return result, time.perf_counter() - started


def _wait() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _processor() -> str:
    """The processor's name, family and model, and its widest vectors: a virtual machine's name may hide generations.

    A Zen 4 and a Zen 5 are both "AMD EPYC" with AVX-512, and the second multiplies matrices twice as fast.
    """
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.machine()
    found = dict(re.findall(r"^(model name|cpu family|model|flags)\s*: (.*)$", information.read_text(), re.MULTILINE))
    widest = next((name for flag, name in _VECTORS.items() if flag in found.get("flags", "").split()), None)
    generation = f"family {found['cpu family']} model {found['model']}" if "cpu family" in found else None
    known = ", ".join(filter(None, (generation, widest)))
    name = found.get("model name", platform.machine()).strip()
    return f"{name} ({known})" if known else name
