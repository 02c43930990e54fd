"""Write docs/results/README.md, the one table of everything measured, and the three figures of README.md.

    python benchmarks/results_table.py            after any script has written its results

Both are made of the CSV files in docs/results/ alone. Figures whose scripts print them and write no file are
rows of docs/results/figures.csv. ``written()`` returns both texts; a test holds the committed files to them.
"""

from __future__ import annotations

import csv
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from helpers.published import EXPERIMENTS
from helpers.twins import groups

ROOT = Path(__file__).resolve().parent.parent
RESULTS, README = ROOT / "docs" / "results", ROOT / "README.md"
MARKS = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)
UNKNOWN, END = "not recorded", "end of the run"
PLAIN, MISSING = "plain PyTorch backpropagation", "not yet measured"
Row = dict[str, str]
HEAD = """# What was measured

Every figure with the script in `benchmarks/` that measures it again. Unless a line says otherwise: MNIST,
784-7x240-10 tanh, minibatches of 100, float32 on the CPU, one thread for each stage; D is the number of
minibatches in flight. Errors are test errors in percent: mean ± sample deviation, then each seed from 0.
A date is the day on which a figure was recorded; what nobody wrote down is "not recorded".

More about some of them: [delay](staleness.md) and [what was tried against it](staleness_search.md), the
[papers' experiments](reproduce.md) with the sources of published figures, [plans](plan.md),
[virtual devices](virtual.md), [monitoring](monitoring.md). The delay's remedies are explained in
[concepts.md](../concepts.md).

`python benchmarks/results_table.py` writes this page from the CSV files in this folder.

![test error against stages and minibatches in flight, for DTP and for backpropagation](staleness.png)

"""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    part: str
    figure: str
    value: str
    script: str
    config: str
    seeds: str
    machine: str
    date: str


def read(name: str) -> list[Row]:
    """Return the rows of a file of results."""
    with (RESULTS / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pick(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """Return the rows whose cells are as ``wanted``."""
    return [row for row in rows if all(row[name] == str(value) for name, value in wanted.items())]


def one(rows: Sequence[Row], name: str) -> str:
    """Return what the rows have in a column: "2026-11-24", or "2026-11-24, 2026-11-25"."""
    return ", ".join(sorted({row[name] or UNKNOWN for row in rows}))


def mean_of(values: Sequence[float]) -> str:
    """Return mean and sample deviation: "2.54 ± 0.11"; the mean alone of a single value."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def listed(values: Sequence[float]) -> str:
    """Return mean, deviation and each value: "2.54 ± 0.11 (2.43, 2.65)"."""
    return f"{mean_of(values)} ({', '.join(f'{value:.2f}' for value in values)})"


def errors(rows: Sequence[Row]) -> list[float]:
    """Return the test errors of some runs of staleness.csv, by seed."""
    return [float(row["test"]) for row in sorted(rows, key=lambda row: int(row["seed"]))]


def delay() -> Iterator[Line]:
    """Yield the errors with and without delay."""
    rows = read("staleness")
    exact, deep = {"stages": 1, "in_flight": 1}, {"stages": 8, "in_flight": 8}
    for rule, rate, epochs, shape, title in (
        ("dtp", "default", 12, exact, "exact: one stage, D = 1"),
        ("dtp", "default", 12, deep, "eight stages, D = 8"),
        ("dtp", "default", 30, exact, "exact: one stage, D = 1"),
        ("dtp", "default", 30, deep, "eight stages, D = 8"),
        ("dtp", "default", 4, exact, "exact: one stage, D = 1"),
        ("dtp", "default", 4, deep, "eight stages, D = 8"),
        ("dtp", "unscaled", 4, deep, "the same without any remedy for delay"),
        ("dtp_stale", "default", 4, deep, "the same with `rule.anchor=stale`"),
        ("backprop", "default", 4, exact, "backpropagation as a rule, exact"),
        ("backprop", "default", 4, deep, "backpropagation as a rule, eight stages, D = 8"),
    ):
        mine = pick(rows, rule=rule, rate=rate, epochs=epochs, **shape)
        config = "mnist_backprop.yaml" if rule == "backprop" else "mnist_dtp_adam.yaml"
        seeds = one(mine, "seed")
        source = ("staleness.py", config, seeds, one(mine, "machine"), one(mine, "date"))
        yield Line("delay", f"{title}, {epochs} epochs", f"{listed(errors(mine))} %", *source)


def ablations() -> Iterator[Line]:
    """Yield the core experiments."""
    for row in read("accuracy"):
        errors = [float(value) for value in row["each_seed"].split(", ")]
        seeds = ", ".join(str(seed) for seed in range(len(errors)))
        value = f"{listed(errors)} %"
        config = row["config"].replace(" ", ", ")
        yield Line(
            "errors", row["experiment"], value, "accuracy.py", config, seeds, row["machine"], row["date"]
        )


def papers() -> Iterator[Line]:
    """Yield the papers' experiments."""
    for group in groups(read("reproduce")):
        experiment, mine = EXPERIMENTS[group.name], group.rows
        value, (twin, difference) = f"{listed(group.errors)} %", group.next_to_twin
        if group.twin is not None:
            value += f"; twin {twin}, difference {difference}"
        if experiment.published is not None:
            value += f"; published {experiment.published:.2f} ({experiment.how})"
        title = f"{experiment.title}, {experiment.data}, {group.budget} epochs"
        source = (f"{group.name}.yaml", one(mine, "seed"), one(mine, "machine"), one(mine, "date"))
        yield Line("papers", title, value, "reproduce.py", *source)


def search() -> Iterator[Line]:
    """Yield the searches of settings, which look at validation errors alone."""
    rows = read("fw_dtp_search")
    for name in dict.fromkeys(row["config"] for row in rows):
        title = f"best of {len(pick(rows, config=name))} trials of settings"
        yield found_best(pick(rows, config=name), title, "", UNKNOWN, "search_fw_dtp.py")
    rows = read("rate_search")
    for name, key in dict.fromkeys((row["config"], row["key"]) for row in rows):
        mine = pick(rows, config=name, key=key)
        values = dict.fromkeys(row["value"] for row in mine)
        title = f"best of {len(values)} values of `{key}`"
        yield found_best(mine, title, "value", one(mine, "seed"), "search_rate.py")


def found_best(rows: Sequence[Row], title: str, shown: str, seeds: str, script: str) -> Line:
    """Return the line of a search: its best trial, with what it has in the column ``shown``."""
    done = [row for row in rows if row["valid_error"] != "failed"]
    best = min(done, key=lambda row: float(row["valid_error"]))
    value = f"validation error {float(best['valid_error']):.2f} % after {best['epochs']} epochs"
    value = f"{best[shown]}: {value}" if shown else value
    source = (f"{best['config']}.yaml", seeds, one(rows, "machine"), one(rows, "date"))
    return Line("papers", title, value, script, *source)


def speed() -> Iterator[Line]:
    """Yield the speed of two stages next to one process, and to plain PyTorch where that was measured."""
    rows = read("speed")
    for row in rows:
        rounds = f", rounds {row['least']} to {row['most']}" if row["least"] else ""
        value = f"{row['ms']} ms a minibatch{rounds}; {row['times_exact']} times the exact rate"
        yield Line("speed", row["run"], value, "speed.py", row["config"], "0", row["machine"], row["date"])
    if not pick(rows, run=PLAIN):
        yield Line("speed", PLAIN, MISSING, "speed.py", "mnist_dtp_adam.yaml", "-", "-", "-")


def plans() -> Iterator[Line]:
    """Yield how far predictions are from what runs do."""
    rows = read("plan")
    names = ("planned_samples_per_second", "measured_samples_per_second", "planned_idle", "measured_idle")
    figures = [[float(row[name]) for name in names] for row in rows]
    off = max(abs(planned / measured - 1) for planned, measured, _, _ in figures)
    points = max(abs(planned - measured) for _, _, planned, measured in figures)
    source = ("plan.py", "mnist_dtp_adam.yaml, three networks", "0", one(rows, "machine"), one(rows, "date"))
    title = "how far predictions are from samples/s and idle share, at most"
    yield Line("plans", title, f"{100 * off:.1f} %, {points:.1f} points", *source)
    network = "784-2x800-5x160-10"
    best, equal = (float(row[names[1]]) for row in pick(rows, network=network, stages=2, in_flight=2))
    title = f"the planned cut of {network} next to four layers each"
    yield Line("plans", title, f"{best / equal:.2f} times the samples/s", *source)


def virtual() -> Iterator[Line]:
    """Yield what the runtime adds to devices that sleep."""
    for row in read("virtual"):
        title = f"{row['stages']} stages on runtime {row['runtime']} that sleep 5 ms an action"
        times = f"{row['period']} ms a minibatch, predicted {row['planned']}"
        value = f"{row['share']} % of the slowest stage's speed: {times}"
        config = f"mnist_dtp_adam.yaml, parallel.stages={row['stages']}"
        yield Line("virtual", title, value, "virtual.py", config, "0", row["machine"], row["date"])


def faults() -> Iterator[Line]:
    """Yield how runs ended that had random faults."""
    rows = read("soak")
    for runtime in dict.fromkeys(row["runtime"] for row in rows):
        mine = pick(rows, runtime=runtime)
        count, kills, runs, whole = soaked(mine)
        title = f"{count} random faults, {kills} of them kill -9 of a stage; {runtime}, four stages, D = 4"
        value = f"{whole} of {runs} runs ended with the same bits, and nothing left behind"
        seeds = f"0 to {max(int(row['seed']) for row in mine)}"
        source = ("soak.py", "digits_dtp.yaml", seeds, one(mine, "machine"), one(mine, "date"))
        yield Line("faults", title, value, *source)


def soaked(rows: Sequence[Row]) -> tuple[int, int, int, int]:
    """Return the numbers of faults, of killed stages, of runs, and of runs that ended as they should."""
    happened = [row for row in rows if row["kind"] != END and row["outcome"] != "too late"]
    ends = pick(rows, kind=END)
    whole = pick(ends, outcome="the same bits, nothing left")
    return len(happened), len(pick(happened, kind="kill")), len(ends), len(whole)


def others() -> Iterator[Line]:
    """Yield what scripts print and write nowhere."""
    for row in read("figures"):
        yield Line(**row)


def lines() -> list[Line]:
    """Return all lines, those of a part together."""
    parts = (delay, ablations, papers, search, speed, plans, virtual, faults, others)
    found = [line for part in parts for line in part()]
    order = list(dict.fromkeys(line.part for line in found))
    return sorted(found, key=lambda line: order.index(line.part))


def page() -> str:
    """Return docs/results/README.md; machines have letters, which are explained below the table."""
    found = lines()
    machines = sorted({line.machine for line in found} - {UNKNOWN, "-"})
    letters = {machine: chr(ord("a") + number) for number, machine in enumerate(machines)}
    text = [
        "| what | figure | value | script | config | seeds | machine | date |",
        f"|{'---|' * 8}",
    ]
    for line in found:
        cells = [*astuple(line)]
        cells[-2] = letters.get(line.machine, line.machine)
        text.append(f"| {' | '.join(cells)} |")
    text += ["", "Machines:", "", *(f"- {letter}: {machine}" for machine, letter in letters.items())]
    return HEAD + "\n".join(text) + "\n"


def first_screen() -> str:
    """Return the three figures of README.md."""
    rows, speeds = pick(read("staleness"), rule="dtp", rate="default", epochs=12), read("speed")
    deep, exact = (mean_of(errors(pick(rows, stages=n, in_flight=n))) for n in (8, 1))
    seeds = len(pick(rows, stages=1))
    alone, pair = (pick(speeds, run=name)[0] for name in ("exact, one process", "two local stages, D = 2"))
    plain = pick(speeds, run=PLAIN)
    torch = f"{plain[0]['ms']} ms" if plain else MISSING
    soak = read("soak")
    count, kills, runs, whole = soaked(soak)
    kinds = len({row["kind"] for row in soak} - {"kill", END})
    cells = (
        (
            "test error with eight minibatches in flight, next to the exact algorithm",
            f"**{deep} %** next to {exact} % (MNIST, 12 epochs, {seeds} seeds)",
            "staleness.py",
        ),
        (
            "a minibatch on two stages, next to one process and to plain PyTorch backpropagation",
            f"**{pair['ms']} ms**, {pair['times_exact']} times the speed of one process ({alone['ms']} ms); "
            f"plain PyTorch: {torch}",
            "speed.py",
        ),
        (
            f"weights after `kill -9` of a stage, and after {kinds} other kinds of fault",
            f"**the same bits** in {whole} of {runs} runs; {count} faults, {kills} of them a killed stage",
            "soak.py",
        ),
    )
    table = [f"| {what} | {value} | `benchmarks/{script}` |" for what, value, script in cells]
    return "\n".join(["| measured | | script |", "|---|---|---|", *table]) + "\n"


def written() -> dict[Path, str]:
    """Return the texts of the files that this script writes."""
    readme = MARKS.sub(lambda found: f"{found[1]}{first_screen()}{found[2]}", README.read_text())
    return {RESULTS / "README.md": page(), README: readme}


def main() -> None:
    """Write both."""
    for path, text in written().items():
        path.write_text(text)
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
