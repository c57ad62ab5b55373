"""A model card for a distilled model: who taught it, on what, how, what it is worth and lost."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from kdlab.base.arguments import instance, listed, text
from kdlab.evidence.audit import Audit
from kdlab.losses.protocol import Objective

NOT_MEASURED = "Not measured."
# columns of `costs` in words, and how their numbers are written
COSTS = {
    "parameters": ("parameters", "{:,.0f}"),
    "on_disk": ("bytes on disk", "{:,.0f}"),
    "flops": ("FLOPs a row", "{:,.0f}"),
    "latency_ms": ("latency, ms (median)", "{:.2f}"),
    "latency_95_ms": ("latency, ms (95th percentile)", "{:.2f}"),
    "rows_a_second": ("rows a second", "{:,.0f}"),
    "peak": ("bytes in use, at most", "{:,.0f}"),
    "dollars": ("dollars a million rows", "{:.4f}"),
}


def model_card(
    name: str,
    teacher: str,
    data: str,
    objective: Objective | str,
    audit: Audit | None = None,
    costs: pd.DataFrame | None = None,
    limits: str = "",
    license: str | None = None,
    language: str | Sequence[str] | None = None,
) -> Any:
    """A card for the hub, or for a folder → `huggingface_hub.ModelCard`.

    name: what the student is called. teacher, data: a hub id, or words. objective: the loss, whose
    repr shows its settings. audit: made by `kdlab.audit` on rows that neither model was trained or
    chosen on; costs: the table of `kdlab.costs`. limits: what it is not for, in words. license: as
    the hub names them ("apache-2.0"): that of the teacher and the data bind the student too. What
    is missing is written down as not measured. `card.save("README.md")` writes it;
    `card.push_to_hub("me/student")` puts it beside the weights, which `model.push_to_hub` brings.

    >>> from kdlab import KDLoss
    >>> card = model_card("small", "the large one", "digits", KDLoss(temperature=4))
    >>> card.data.tags
    ['knowledge-distillation', 'kdlab']
    >>> "KDLoss(temperature=4, alpha=0.9)" in card.text
    True
    """
    for key, value in (("name", name), ("teacher", teacher), ("data", data)):
        text("model_card", key, value)
    instance("model_card", "objective", objective, (Objective, str), "a loss, or words")
    if audit is not None:
        instance("model_card", "audit", audit, Audit, "as kdlab.audit makes it")
    if costs is not None:
        instance("model_card", "costs", costs, pd.DataFrame, "the table of kdlab.costs")
    instance("model_card", "limits", limits, str, "words")
    if license is not None:
        text("model_card", "license", license)
    if language is not None:
        language = [language] if isinstance(language, str) else language
        language = listed("model_card", "language", language, "a language, or a list of them")
        for one in language:
            text("model_card", "language", one)
    from huggingface_hub import ModelCard, ModelCardData

    about = ModelCardData(
        license=license,
        language=language,
        base_model=teacher if _hub_id(teacher) else None,
        datasets=[data] if _hub_id(data) else None,
        tags=["knowledge-distillation", "kdlab"],
    )
    body = [
        f"# {name}",
        f"A model distilled from **{teacher}** on {data}.",
        "## How it was trained",
        _table([("teacher", teacher), ("data", data), ("objective", f"`{objective}`")]),
        "## What it is worth, and what it lost",
        NOT_MEASURED if audit is None else _audited(audit),
        "## What it costs",
        NOT_MEASURED if costs is None else _costs(costs),
        "## What it is not for",
        limits
        or "Nobody has written this down. A student inherits its teacher's mistakes and biases, "
        "and adds mistakes of its own where it is smaller: measure it where it will be used.",
    ]
    return ModelCard(f"---\n{about.to_yaml()}\n---\n\n" + "\n\n".join(body) + "\n")


def _hub_id(words):
    """Whether a name may be a repository of the hub: owner/name."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(words)
    except HFValidationError:
        return False
    return words.count("/") == 1


def _table(rows, head=("", "")):
    """Markdown; a bar in a cell would end it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(x).replace("|", "\\|") for x in r) + " |" for r in lines)


def _audited(audit):
    rows = [
        (
            name,
            f"{row['rows']:,}",
            f"{row['teacher']:.1f}" if row["rows"] else "",
            f"{row['student']:.1f}" if row["rows"] else "",
            _change(row),
            row["verdict"],
        )
        for name, row in audit.table().iterrows()
    ]
    head = ("rows", "how many", "teacher, %", "student, %", "change in points", "")
    return (
        f"{_table(rows, head)}\n\nStudent minus teacher on rows that neither was trained on; the "
        "intervals hold together at 95 %, for this teacher and this student. "
        f"{' '.join(audit.told())}"
    )


def _change(row):
    if math.isnan(row["change"]):
        return ""
    low, high = f"{row['low']:.1f}", f"{row['high']:.1f}"
    return f"{row['change'] + 0.0:.1f}" + ("" if math.isnan(row["low"]) else f" ({low} to {high})")


def _costs(costs):
    here = [name for name in COSTS if name in costs and costs[name].notna().any()]
    rows = [
        (
            COSTS[column][0],
            *(
                "" if math.isnan(value) else COSTS[column][1].format(value)
                for value in costs[column].astype(float)
            ),
        )
        for column in here
    ]
    where = ", ".join(dict.fromkeys(costs["where"])) if "where" in costs else ""
    return _table(rows, ("", *costs.index)) + (f"\n\nMeasured on: {where}." if where else "")
