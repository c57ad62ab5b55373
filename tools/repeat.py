"""How often a lesson's claims hold on fresh splits: python tools/repeat.py notebook [--times 20]
                                                        [--tables]

Runs the lesson's code again and again, each time in a fresh kernel with KDLAB_REPEAT=1, 2, …, which
draws other splits, teachers and students by the same code, and counts for every claim how often it
held. A claim read off a committed table counts in those runs for which the table was measured again
(benchmarks/again.py); where it never was, its row says 0 of 0. The rows of the lesson in
benchmarks/results/claims.csv are replaced when all runs are done, with --tables only those of
claims off tables; a cell that stops leaves the table as it was. Finished runs are kept in
build/repeats, so that an interrupted call goes on from there, until the lesson's code, the package
or a table changes; beside each lies what its cells printed. Afterwards `make execute` puts the rows
on the cards."""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

import pandas as pd
from runner import ROOT, CellError, lessons, read, run

sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
LEDGER = ROOT / "benchmarks" / "results" / "claims.csv"
# what kdlab.lessons.tables.over says of a table, as committed and as one of the two
COMMITTED, OFF_TABLE = "read off the committed table", "read off the committed table|measured again"
CAP = 99.0  # standard errors: where all units are equal, a margin would be infinite


def code(path):
    """A digest of what a run depends on: the lesson's code, the package, the tables it reads."""
    told = hashlib.sha256()
    for cell in read(path).cells:
        if cell.cell_type == "code":
            told.update(cell.source.encode())
    sources = sorted((ROOT / "kdlab").rglob("*.py"))
    tables = sorted(p for p in (ROOT / "benchmarks" / "results").rglob("*.csv") if p != LEDGER)
    for file in [*sources, *tables]:
        told.update(file.read_bytes())
    return told.hexdigest()[:16]


def printed(notebook):
    """What the cells of a run printed, in order: figures that a lesson tells and does not claim."""
    outputs = (out for cell in notebook.cells for out in cell.get("outputs", []))
    return "".join(out["text"] for out in outputs if out.get("name") == "stdout")


def claimed(path, k, kept):
    """What run k claims, [{"sentence", "budgets"}], from the file `kept` or from a new run."""
    if kept.exists():
        print(f"{path.stem:<28} run {k} was kept", flush=True)
    else:
        with tempfile.TemporaryDirectory(prefix="repeat-") as folder:
            ledger = Path(folder, "claims.jsonl")
            os.environ |= {
                "KDLAB_REPEAT": str(k),
                "KDLAB_CLAIMS": "report",
                "KDLAB_LEDGER": str(ledger),
            }
            notebook = read(path)
            seconds = run(path, notebook)
            told = ledger.read_text(encoding="utf-8") if ledger.exists() else ""
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.with_suffix(".txt").write_text(printed(notebook), encoding="utf-8")
        new = kept.with_suffix(".new")
        new.write_text(told, encoding="utf-8")
        new.replace(kept)  # all of it or nothing
        print(f"{path.stem:<28} run {k}  {seconds:7.1f} s", flush=True)
    return list(map(json.loads, kept.read_text(encoding="utf-8").splitlines()))


def repeated(path, times, runs):
    """What every run claimed: a frame of run, place, sentence, budget, held, margin, mean."""
    folder = runs / f"{path.stem}-{code(path)}"
    rows = [
        {"run": k, "place": i, "sentence": claim["sentence"], "budget": budget}
        | {"held": bool(held), "margin": max(-CAP, min(CAP, margin)), "mean": mean}
        | {"units": claim["units"]}
        for k in range(1, times + 1)
        for i, claim in enumerate(claimed(path, k, folder / f"{k}.jsonl"))
        for budget, (held, margin, mean) in claim["budgets"].items()
    ]
    columns = ["run", "place", "sentence", "budget", "held", "margin", "mean", "units"]
    return pd.DataFrame(rows, columns=columns)


def summed(lesson, frame):
    """A row a claim, in the lesson's order: how often it held, its margins, and where it flips."""
    rows = []
    for sentence, claim in frame.groupby("sentence", sort=False):
        claim = claim[~claim["units"].str.contains(COMMITTED)]
        if claim.empty or not drawn_anew(claim):
            print(f"  not counted, it is the same in every run: {sentence}")
            rows.append({"lesson": lesson, "sentence": sentence, "held": 0, "of": 0})
            continue
        runs = claim.groupby("run").agg(held=("held", "all"), margin=("margin", "min"))
        failed = claim[~claim["held"] & (claim["budget"] != "")].groupby("budget", sort=False)
        rows.append(
            {
                "lesson": lesson,
                "sentence": sentence,
                "held": int(runs["held"].sum()),
                "of": len(runs),
                "mean_margin": f"{runs['margin'].mean():.1f}",
                "least_margin": f"{runs['margin'].min():.1f}",
                "flips": "; ".join(
                    f"{budget} ({n})" for budget, n in failed["run"].nunique().items()
                ),
            }
        )
    return rows


def drawn_anew(claim):
    """Whether fresh splits moved it. What is the same in every run was not drawn anew, and to count
    how often would prove nothing. Equal students differ by 0 in every run."""
    moved = claim.groupby("budget")[["margin", "mean"]].nunique() > 1
    alone = claim["run"].nunique() == 1
    return alone or bool(moved.any(axis=None) or (claim["mean"] == 0).all())


def replace(table, lesson, rows, others=()):
    """The table with these rows in place of the lesson's, in one step, sorted by lesson.

    others: sentences of the lesson whose rows stay as they are."""
    kept = []
    if table.exists():
        kept = pd.read_csv(table, dtype=str, keep_default_na=False).to_dict("records")
    stay = {row["sentence"]: row for row in kept if row["lesson"] == lesson}
    rows = [stay.get(r["sentence"], r) if r["sentence"] in others else r for r in rows]
    kept = [row for row in kept if row["lesson"] != lesson]
    new = table.with_name(table.name + ".new")
    table.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(kept + rows).sort_values("lesson", kind="stable")
    frame.to_csv(new, index=False, lineterminator="\n")
    new.replace(table)


def hardware():
    """The columns that say where the runs were made, as the benchmarks' tables say it."""
    import kdlab as kd  # before torch, which the tables need

    lab = kd.setup()
    import table

    return table.hardware(lab)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="repeat.py", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", nargs="+", help="a lesson, or several")
    parser.add_argument("--times", type=int, default=20, help="runs of each (20)")
    parser.add_argument("--ledger", type=Path, default=LEDGER, help="the table to write")
    parser.add_argument(
        "--runs", type=Path, default=ROOT / "build" / "repeats", help="where runs are kept"
    )
    parser.add_argument(
        "--tables",
        action="store_true",
        help="leave the rows of claims that are drawn in the lesson",
    )
    asked = parser.parse_args(arguments)
    if asked.times < 1:
        parser.error(f"--times must be at least 1, got {asked.times}")
    where = hardware()
    for path in lessons(asked.notebook):
        try:
            frame = repeated(path, asked.times, asked.runs)
        except CellError as failure:
            return f"FAILED  {failure}\n  {asked.ledger.name} stays as it was"
        if frame.empty:
            return f"{path.name}: claims nothing"
        rows = [row | where for row in summed(path.stem, frame)]
        live = set(frame.loc[~frame["units"].str.contains(OFF_TABLE), "sentence"])
        others = live if asked.tables else set()
        replace(asked.ledger, path.stem, rows, others)
        for row in filter(lambda row: row["of"] and row["sentence"] not in others, rows):
            print(
                f"  {row['held']:>3} of {row['of']}  margin {row['mean_margin']:>6}, at the least "
                f"{row['least_margin']:>6}  {row['sentence']}"
                + f"  [{row['flips']}]"
                * bool(row["flips"])
            )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the table stays as it was, and the next call goes on from here.")
