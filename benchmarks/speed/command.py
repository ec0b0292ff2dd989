"""Side-by-side timings: `text-envs bench speed`.

Seconds differ from machine to machine, ratios less so: both sides run in turn, in one process. Each section is a
module of its own; a section that is measured again replaces what the file had of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..arguments import count
from ..errors import UserError
from ..files import write_text
from ..report.document import Table, markdown_table, refresh_readme, text_row
from ..scores import many
from . import agents, envs
from .timing import Row

SECTIONS: dict[str, Callable[[int, str], Iterator[Row]]] = {
    "envs": envs.rows,
    "agents": agents.rows,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the timings, print each row as it comes and write them as JSON."""
    import torch

    from .. import machine

    parser = argparse.ArgumentParser(prog="text-envs bench speed", description=__doc__)
    parser.add_argument("--only", choices=SECTIONS, help="one section (default: all)")
    parser.add_argument("--repeats", type=count, default=3, help="pairs of measurements (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of the agents")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"))
    parser.add_argument("--quick", action="store_true", help="tiny agents, to see that everything runs; figures "
                        "that mean nothing, so give an --out of their own")  # fmt: skip
    parser.add_argument("--show", action="store_true", help="print what --out holds as a table; measure nothing")
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="with --show: also renew its block results:speed"
    )
    arguments = parser.parse_args(argv)
    if arguments.show:
        return _show(arguments.out, arguments.readme)
    if arguments.readme is not None:
        raise UserError("--readme goes with --show")
    if arguments.quick and arguments.out == parser.get_default("out"):
        raise UserError(f"--quick would replace the measured {arguments.out}; give --out FILE")
    timings = {**SECTIONS, "agents": agents.quick_rows} if arguments.quick else SECTIONS
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name in [arguments.only] if arguments.only else SECTIONS:
        print(name)
        revision, started = machine.revision(), datetime.now(UTC).isoformat(timespec="seconds")
        rows = []
        for row in timings[name](arguments.repeats, arguments.device):
            print(f"  {row['name']}: {row['told']}", flush=True)
            rows.append(row)
        # read only now: another section may have been measured meanwhile
        sections = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
        sections[name] = {
            "hardware": machine.hardware(),
            "device": arguments.device if name == "agents" else "cpu",
            "threads": torch.get_num_threads(),
            "versions": machine.versions(),
            "revision": revision,
            "started": started,
            "rows": rows,
        }
        write_text(arguments.out, json.dumps(sections, indent=1) + "\n")
    print(f"written to {arguments.out}")
    return 0


def table(file: Path) -> str:
    """Return the measured rows as Markdown tables, one a section, each with what they were measured on."""
    parts = []
    for section in json.loads(file.read_text(encoding="utf-8")).values():
        rows = tuple(text_row(row["name"], row["told"]) for row in section["rows"])
        parts.append(f"{markdown_table(Table(('what', 'measured'), rows, labels=2))}\n{_measured_on(section)}\n")
    return "\n".join(parts)


def _measured_on(section: Mapping[str, Any]) -> str:
    """Return the machine, the code and the versions that a section's timings are of."""
    machine = section["hardware"]
    device = machine["cpu"] if section["device"] == "cpu" else machine["gpu"]
    versions = ", ".join(f"{name} {version}" for name, version in section["versions"].items())
    return (
        f"Measured on {device}, {many(section['threads'], 'thread')}, {section['started'][:10]}, revision "
        f"{section['revision']}, with {versions}."
    )


def _show(file: Path, readme: Path | None) -> int:
    if not file.exists():
        raise UserError(
            f"no timings in {file}; run `text-envs bench speed` first, or name them "
            "by --out FILE (the project's own lie in its repository)"
        )
    print(table(file))
    if readme is not None:
        text = readme.read_text(encoding="utf-8")
        write_text(readme, refresh_readme(text, "speed", table(file)))
    return 0
