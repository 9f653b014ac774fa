"""Run the benchmarks whose names are given, or all of them."""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tests.bench
from tests.bench import Row
from tests.bench.lab import ROOT, BenchError

Bench = Callable[[bool], list[Row]]
OUT = ROOT / "build" / "bench.json"


def benches(wanted: Sequence[str]) -> Iterator[tuple[str, Bench]]:
    """Find the modules with a `run`; a wanted name is any part of a module's name."""
    for found in pkgutil.iter_modules(tests.bench.__path__):
        name = found.name
        if name == "__main__" or (wanted and not any(part in name for part in wanted)):
            continue
        module = importlib.import_module(f"tests.bench.{name}")
        if hasattr(module, "run"):
            yield name, module.run


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out in columns."""
    head = ("", "here", "reference", "ratio", "goal", "")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in {0, 5} else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    goal = "" if row.goal is None else f"{'≥' if row.at_least else '≤'} {row.goal:g}"
    verdict = {None: "", True: "met", False: "MISSED"}[row.met]
    if row.goal is not None and not row.trusted:
        verdict = "no verdict:"
    return (
        row.name,
        _number(row.value, row.unit),
        "" if row.reference is None else _number(row.reference, row.unit),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        goal,
        " ".join(part for part in (verdict, row.note) if part),
    )


def _number(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def save(rows: Sequence[Row]) -> None:
    """Write the rows, and on what and when they were measured, as JSON."""
    machine = {"python": platform.python_version(), "system": platform.platform()}
    OUT.parent.mkdir(exist_ok=True)
    found = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {**machine, "cores": os.cpu_count()},
        "rows": [{**row._asdict(), "met": row.met} for row in rows],
    }
    OUT.write_text(json.dumps(found, indent=1) + "\n")


def main() -> int:
    """Return 0 if all was measured, however slow it was, else 1."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("names", nargs="*", help="parts of names of modules in tests/bench")
    args = parser.parse_args()
    if not Path("/proc/self/smaps_rollup").exists():
        print("The benchmarks read /proc and pin cores: they run on Linux only.", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing outlives us
    rows, failed = measure(args.names, quick=args.quick)
    print(table(rows))
    for name, error in failed:
        print(f"{name} could not be measured: {error}", file=sys.stderr)
    return 1 if failed or not rows else 0


def measure(names: Sequence[str], *, quick: bool) -> tuple[list[Row], list[tuple[str, Exception]]]:
    """Run each; one that fails doesn't keep the others from being measured."""
    rows: list[Row] = []
    failed: list[tuple[str, Exception]] = []
    for name, bench in benches(names):
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += bench(quick)
            save(rows)  # what was measured stays, whatever comes
        except (BenchError, OSError) as error:
            failed.append((name, error))
    return rows, failed


if __name__ == "__main__":
    sys.exit(main())
