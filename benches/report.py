"""Results of `make bench`: stored as JSON, and written into docs/BENCHMARKS.md as tables and plots."""

import datetime
import json
import pathlib
import platform
import re
import subprocess

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "gjallar", "font.size": 10, "axes.grid": True,
    "axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.3})
from matplotlib import pyplot  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches/results.json"
DOCUMENT = ROOT / "docs/BENCHMARKS.md"

# Axes of the plots. If there are several columns, each has a plot.
PLOTS = {
    "audiences": ("subscribers", "notifications/s"),
    "outstanding": ("outstanding", "publishes/s"),
    "latency": ("percentile", "ms"),
    "subscriptions": ("subscriptions", None),
    "history": ("items at the node", "publishes/s"),
}


def note(name, title, rows):
    """Stores the results of a bench, with the machine, the versions and the date."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = {"title": title, "rows": rows, "at": circumstances()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def found(name):
    """Returns the stored rows of a bench."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return results.get(name, {}).get("rows", {})


def circumstances():
    said = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.strip()
    processor = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    processors = pathlib.Path("/proc/cpuinfo").read_text().count("processor\t")
    package = lambda name: said("dpkg-query", "-W", "-f", "${Version}", name)
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{processors} × {processor.group(1) if processor else platform.machine()}, "
                   f"Linux {platform.release().split('-')[0]}",
        "versions": f"gjallar {said('git', '-C', str(ROOT), 'rev-parse', '--short', 'HEAD')}, "
                    f"{said('rustc', '--version').split(' (')[0]}, Prosody {package('prosody')}, "
                    f"ejabberd {package('ejabberd')}",
    }


def write():
    """Writes the tables and plots of all stored results."""
    results = json.loads(RESULTS.read_text())
    text = DOCUMENT.read_text()
    for name, result in results.items():
        plot = plots(name, result)
        at = result["at"]
        head = f"{result['title']}. {at['date']}; {at['machine']}; {at['versions']}."
        section = "\n".join(["", head, "", *table(result), "", *plot, *([""] if plot else [])])
        begin, end = f"<!-- bench {name} -->", f"<!-- end {name} -->"
        text, found = re.subn(
            f"(?s){begin}.*?{end}", lambda _: f"{begin}\n{section}\n{end}", text)
        if not found:
            raise SystemExit(f"{DOCUMENT.name} has no place for {name}")
    DOCUMENT.write_text(text)


def table(result):
    rows = {str(row): cells for row, cells in result["rows"].items()}
    if is_nested(rows):
        columns = list(next(iter(rows.values())))
        yield "| | " + " | ".join(columns) + " |"
        yield "|---:|" + "---:|" * len(columns)
        for row, cells in rows.items():
            shown = (f"{number(cell['median'])} ({spread(cell)})" for cell in cells.values())
            yield f"| {label(row)} | " + " | ".join(shown) + " |"
    else:
        yield "| | median | of |\n|---|---:|---:|"
        for row, cell in rows.items():
            yield f"| {label(row)} | {number(cell['median'])} | {spread(cell)} |"


def is_nested(rows):
    return "median" not in next(iter(rows.values()))


def label(row):
    return f"{int(row):,}".replace(",", " ") if row.isdigit() else row


def number(value):
    return f"{value:,.0f}".replace(",", " ") if value >= 1000 else f"{value:.3g}"


def spread(cell):
    runs = sorted(cell["runs"])
    return number(runs[0]) if len(runs) == 1 else f"{number(runs[0])} – {number(runs[-1])}"


def plots(name, result):
    if name not in PLOTS:
        return []
    x, y = PLOTS[name]
    rows = result["rows"]
    columns = {y: rows}
    if is_nested(rows):
        names = next(iter(rows.values()))
        columns = {column: {row: cells[column] for row, cells in rows.items()} for column in names}
    written = []
    for index, (column, cells) in enumerate(columns.items()):
        figure, axes = pyplot.subplots(figsize=(6, 3.2))
        is_number = all(row.isdigit() for row in cells)
        at = [int(row) for row in cells] if is_number else list(cells)
        middle = [cell["median"] for cell in cells.values()]
        below = [cell["median"] - min(cell["runs"]) for cell in cells.values()]
        above = [max(cell["runs"]) - cell["median"] for cell in cells.values()]
        axes.errorbar(at, middle, yerr=[below, above], marker="o", capsize=3)
        if is_number:
            axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(x)
        axes.set_ylabel(column)
        file = f"benchmarks-{name}{f'-{index + 1}' if len(columns) > 1 else ''}.svg"
        figure.savefig(ROOT / "docs" / file, bbox_inches="tight", metadata={"Date": None})
        pyplot.close(figure)
        written.append(f"![{column} against {x}]({file})")
    return written
