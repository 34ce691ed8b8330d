"""Appends measurements to benchmarks/results.csv, each with what is needed to take it again."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("results.csv")
FIELDS = ["date", "commit", "machine", "versions", "benchmark", "system", "case", "measure", "value", "unit"]


def machine(device: str) -> str:
    """The processor or GPU that was measured."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        name = next((x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x), name)
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def versions() -> str:
    """Of what the measured systems are made of."""
    found = []
    for package in ("torch", "triton", "transformers", "reformer-pytorch", "sentencepiece"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def commit() -> str:
    """Short hash, with + where the tree has changes."""
    try:
        run = {"cwd": RESULTS.parent, "capture_output": True, "text": True, "check": True}
        found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **run).stdout.strip()  # type: ignore[call-overload]
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], **run).stdout.strip()  # type: ignore[call-overload]
        return found + ("+" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def append(device: str, benchmark: str, rows: list[tuple[str, str, str, float, str]]) -> None:
    """rows: (system, case, measure, value, unit)."""
    about = {
        "date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine(device),
        "versions": versions(), "benchmark": benchmark,
    }  # fmt: skip
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        for system, case, measure, value, unit in rows:
            measured = {"system": system, "case": case, "measure": measure, "value": f"{value:.6g}", "unit": unit}
            writer.writerow(about | measured)
