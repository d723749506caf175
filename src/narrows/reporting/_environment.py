"""What the samples were taken on: machine, ceilings, software, conditions, as the last section of the page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from narrows.reporting._text import bytes_text, count_text, time_text

if TYPE_CHECKING:
    from narrows._values import Ceilings, Machine, Report


def environment_html(report: Report) -> str:
    """Return the section about machine, ceilings, software and the run itself."""
    run = {"Created": report.created, "narrows": report.version, "Seed": str(report.experiment.seed)}
    parts = [
        ("Machine", _machine(report.machine)),
        ("Ceilings, measured in the same run", _ceilings(report.ceilings)),
        ("Software", report.machine.software),
        ("Run", run | report.conditions),
    ]
    body = "".join(f"<div><h3>{title}</h3>{_facts(facts)}</div>" for title, facts in parts)
    return f'<section id="environment"><h2>Environment</h2><div class="env">{body}</div></section>'


def _facts(facts: dict[str, str]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>' if rows else "<p>Not known.</p>"


def _machine(machine: Machine) -> dict[str, str]:
    caches = ", ".join(f"{level} {bytes_text(size)}" for level, size in machine.caches.items())
    facts = {
        "Device": f"{machine.name} ({machine.device})",
        "Cores, threads": f"{machine.cores}, {machine.threads}",
        "Multiprocessors": str(machine.num_multiprocessors or ""),
        "Caches": caches,
        "Memory": bytes_text(machine.memory_bytes),
        "Features": ", ".join(machine.features),
        "Fingerprint": machine.fingerprint,
    }
    return {name: value for name, value in facts.items() if value}


def _ceilings(ceilings: Ceilings | None) -> dict[str, str]:
    if ceilings is None:
        return {}
    shape = " x ".join(map(str, ceilings.flops_shape))
    facts = {
        "Read, cold and hot": _rates(ceilings.read_bytes_per_s, ceilings.hot_read_bytes_per_s),
        "Write, cold and hot": _rates(ceilings.write_bytes_per_s, ceilings.hot_write_bytes_per_s),
        "Copy, cold": f"{bytes_text(ceilings.copy_bytes_per_s)}/s",
        "Matmul": f"{count_text(ceilings.flops_per_s)}FLOP/s in {ceilings.dtype} ({shape})",
        "One launch, eager": time_text(ceilings.eager_launch_ns),
        "One launch, graph": time_text(ceilings.graph_launch_ns) if ceilings.graph_launch_ns else "",
    }
    return {name: value for name, value in facts.items() if value}


def _rates(cold: float, hot: float) -> str:
    return f"{bytes_text(cold)}/s, {bytes_text(hot)}/s"
