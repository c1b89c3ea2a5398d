"""This module makes the comparison's table, as JSON and Markdown: mean and spread over seeds per mechanism."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from tilepipe.storage import cannot_write, write_durably
from tilepipe.text import JSON
from tilepipe.training.ablation.gallery import write_gallery
from tilepipe.training.ablation.results import Line, Results
from tilepipe.training.ablation.study_config import CompareConfig, Run

AGREEMENT = {
    "mean IoU": "mean_iou",
    "IoU": "iou",
    "Boundary IoU": "boundary_iou",
    "component ratio": "component_ratio",
    "VI split": "split",
}
"""Columns of the first table, at the last step, each with its name in a checkpoint."""
START, END = "imbalance, start", "imbalance, end"


def write_summary(config: CompareConfig, results: Results) -> Path:
    """Write summary.json, summary.md and a picture per set; return the path of summary.md."""
    found = summary(config, results)
    path = results.folder / "summary.md"
    try:
        write_durably(results.folder / "summary.json", json.dumps(found, indent=1) + "\n")
        write_durably(path, markdown(found))
        for name in config.sets:
            write_gallery(results.folder, name, ["image", "truth", *config.mechanisms])
    except OSError as error:
        raise cannot_write(results.folder, error) from None
    return path


def summary(config: CompareConfig, results: Results) -> JSON:
    """Return the mean and the standard deviation over seeds of every column, per set and mechanism."""
    timing = results.timing()
    sets = {}
    for name in config.sets:
        lines = {m: results.runs(name, m, config.seeds) for m in config.mechanisms}
        rows = {m: {**_spread(found), "s/Mpx": timing["speeds"][m]} for m, found in lines.items() if found}
        steps = config.training(Run(name, next(iter(config.mechanisms)), config.seeds[0])).steps
        sets[name] = {"steps": steps, "mechanisms": rows, "reference": results.reference(name)}
    fixed: JSON = {
        "name": config.name,
        "seeds": list(config.seeds),
        "early": list(config.early),
        "width": config.width,
    }
    seconds = [line["seconds"] for run in config.runs if (line := results.run((run.set, run.mechanism, run.seed)))]
    fixed |= {"runs": len(seconds), "minutes": round(sum(seconds) / 60)}
    return {**fixed, "machine": timing["machine"], "sets": sets, "pairs": _pairs(config, results)}


def columns(line: Line) -> dict[str, float]:
    """Return all figures of one run by column."""
    steps = sorted(line["checkpoints"], key=int)
    last = line["checkpoints"][steps[-1]]
    found = {column: last[name] for column, name in AGREEMENT.items()}
    for kind in ("peak", "line"):
        found |= {f"{kind} dB, step {step}": line["checkpoints"][step][f"{kind}_db"] for step in steps}
    return {**found, START: line["imbalance"], END: last["imbalance"]}


def _spread(lines: Sequence[Line]) -> JSON:
    """Return mean, standard deviation and values of every column, and the values that are the same for every seed."""
    runs = [columns(line) for line in lines]
    result: JSON = {name: lines[0][name] for name in ("parameters", "overlap", "halo")}
    for column in runs[0]:
        result[column] = _figure([run[column] for run in runs])
    return result


def _figure(values: Sequence[float]) -> JSON:
    # One seed has no spread.
    spread = stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(mean(values), 5), "sd": round(spread, 5), "values": [round(value, 5) for value in values]}


def _pairs(config: CompareConfig, results: Results) -> JSON:
    """Return for each mechanism the differences of its runs from the first mechanism's, with the same set and seed."""
    first, *others = config.mechanisms
    places = list(product(config.sets, config.seeds))
    base = {place: columns(line) for place in places if (line := results.run((place[0], first, place[1])))}
    found: JSON = {}
    for name in others:
        runs = {place: columns(line) for place in base if (line := results.run((place[0], name, place[1])))}
        shared = set.intersection(*(set(run) & set(base[place]) for place, run in runs.items())) if runs else ()
        apart = {column: [run[column] - base[place][column] for place, run in runs.items()] for column in shared}
        found[name] = {column: _figure(values) for column, values in sorted(apart.items())}
    return found


def markdown(found: JSON) -> str:
    """Return the summary as Markdown: per set one table of agreement and one of checkerboards and cost."""
    parts = []
    for name, data in found["sets"].items():
        if data["mechanisms"]:
            parts += [f"### {name}", _agreement(data), _checkerboards(data)]
    pairs = {name: row for name, row in found["pairs"].items() if row}
    if pairs:
        first = next(iter(next(iter(found["sets"].values()))["mechanisms"]))
        parts += [f"### Run by run against {first}", _against(pairs)]
    return "\n\n".join([*parts, _footer(found)]) + "\n"


def _agreement(data: JSON) -> str:
    body = [
        [name, *(_cell(row[c], 2 if c == "component ratio" else 3) for c in AGREEMENT)]
        for name, row in data["mechanisms"].items()
    ]
    for name, scores in data["reference"].items():
        if name != "truth":
            body.append([f"*{name}*", f"{scores['mean_iou']:.3f}", f"{scores['iou']:.3f}", "", "", ""])
    return _table(["mechanism", *AGREEMENT], body)


def _checkerboards(data: JSON) -> str:
    rows = data["mechanisms"]
    boards = [column for column in next(iter(rows.values())) if " dB, " in column]
    body = []
    for name, row in rows.items():
        uneven = f"{row[START]['mean']:.2f} → {row[END]['mean']:.2f}"
        cost = f"{row['parameters']:,}", f"{row['s/Mpx']:.2f}"
        body.append([name, *(_cell(row[c], 1) for c in boards), f"{row['overlap']:g}:1", uneven, *cost])
    truth = [data["reference"]["truth"][column.split()[0] + "_db"] for column in boards]
    body.append(["*the truth itself*", *(f"{value:.1f}" for value in truth), "", "", "", ""])
    return _table(["mechanism", *boards, "overlap", "imbalance", "parameters", "s/Mpx"], body)


def _against(pairs: JSON) -> str:
    shown = {"mean IoU": 3, "Boundary IoU": 3, "component ratio": 2}
    boards = [column for column in next(iter(pairs.values())) if column.startswith("peak dB")]
    shown |= dict.fromkeys(sorted(boards, key=lambda column: int(column.split()[-1])), 1)
    body = []
    for name, row in pairs.items():
        cells = []
        for column, digits in shown.items():
            values = row[column]["values"]
            more = f"{sum(value > 0 for value in values)}/{len(values)}"
            cells.append(f"{row[column]['mean']:+.{digits}f} ± {row[column]['sd']:.{digits}f} ({more})")
        body.append([name, *cells])
    return _table(["mechanism", *shown], body)


def _footer(found: JSON) -> str:
    steps = " and ".join(str(s) for s in sorted({data["steps"] for data in found["sets"].values()}))
    m = found["machine"]
    return (
        f"Mean ± standard deviation over {len(found['seeds'])} seeds after {steps} steps. IoU and Boundary IoU are "
        f"those of the foreground, the latter {found['width']:g} px wide at full resolution. Peak and line: the "
        "largest over the network's strides. Overlap and imbalance: the largest of its up-sampling layers, imbalance "
        f"at the start → at the end. s/Mpx: processor seconds of a forward pass per million pixels. Measured on "
        f"{m['date']}: {m['architecture']}, {m['cores']} cores, {m['threads']} thread, torch {m['torch']}; "
        f"{found['runs']} runs took {found['minutes']} minutes. "
        "Run by run: difference on the same set with the same seed, and in how many runs it is above 0."
    )


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(figure: JSON, digits: int) -> str:
    return f"{figure['mean']:.{digits}f} ± {figure['sd']:.{digits}f}"
