"""Writes docs/performance.md and its figure from bench/results/, where every machine's measurements lie.

python -m bench.performance
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.machine import results, table
from bench.simulated import cluster

DOCS = Path(__file__).parent.parent / "docs"
WAYS = ("published", "exact", "corrected", "two_stage", "first_order")
ABOUT = """<!-- written by python -m bench.performance from bench/results/: do not edit -->
# Performance

Every table is one run on one machine, its rows side by side in it; `make bench` measures again, and a result of another
machine stands beside these. What is computed: [influence.md](influence.md). The controller is measured where KUBECONFIG
names a cluster with KWOK's nodes: `make bench BENCH="cluster performance"`.
"""


def main() -> int:
    """Write the page; 1 where there is nothing to write."""
    parts = [ABOUT, *influence(), *precision(), *passes(), *ranks(), *scale(), *cluster(), *incontext()]
    if len(parts) == 1:
        print("bench/results/ is empty: run make bench", file=sys.stderr)
        return 1
    (DOCS / "performance.md").write_text("\n".join(parts))
    print(f"wrote {DOCS / 'performance.md'}")
    return 0


def influence() -> Iterator[str]:
    found = sorted(results("influence"), key=lambda each: ("note" in each, each["machine"], -each["refs"]))
    if not found:
        return
    yield (
        "## Influence: seconds a candidate\n\n"
        "`published` loads the checkpoint from disk for each candidate, pads to 1024 tokens, evaluates batches of 8,\n"
        "in fp32 here as ours is. `corrected` is first order plus an exact pass over two of eight groups of reference\n"
        "rows; `two_stage` is first order on all and `corrected` on the best and worst of four. Agreement is with an\n"
        "fp64 oracle. The floor is the time of the necessary matrix products alone at the machine's fp32 rate, which\n"
        "wanders: GFLOP/s is that beside each way, and times faster, where it is given, is of seconds at one and the\n"
        "same. With these rows the products of `published` alone are 1.9 times those of `exact`; what it loses beside\n"
        "them, and with it the lead of `exact`, is more on processors that multiply faster.\n"
    )
    for each in found:
        yield (
            f"**{each['machine']}**, {each['gflops']} GFLOP/s; SmolLM2-135M, {each['refs']} reference rows "
            f"({each['tokens']:,} tokens), candidates of about {each['candidate_tokens']:.0f} tokens; agreement on "
            f"{each['oracle_refs']} rows and {each['candidates']} candidates."
            f"{_timed(each.get('timed_share', 1.0))}{each.get('note', '')}\n"
        )
        floors = {"exact": each["floor_exact"], "first_order": each["floor_first_order"]}
        rows, beside = [], each.get("gflops_beside", {})
        for way in WAYS:
            spearman = each.get(f"spearman_{way}")
            rows.append(
                (
                    way,
                    f"{each['seconds'][way]:.2f}",
                    str(beside.get(way, "")),
                    f"{each.get(f'ratio_{way}', 1.0):.1f}",
                    "" if spearman is None else f"{spearman:.4f}",
                    f"{floors[way]:.0%}" if way in floors else "",
                    f"{each.get(f'peak_gib_{way}', each['peak_gib']):.1f}",
                )
            )
        yield table(("way", "s", "GFLOP/s", "times faster", "Spearman", "of the floor", "peak GiB"), rows)
        once = each["once_s"]
        yield f"Once a shard: {once['base']:.0f} s for the base, {once['gradient']:.0f} s for the reference gradient.\n"
        lengths = [
            (length, f"{row['seconds']:.2f}", f"{row['scores_alone']:.2f}", f"{row['floor']:.0%}")
            for length, row in each["first_order_by_tokens"].items()
        ]
        if lengths:  # --quick times none
            yield "First order by the candidate's length:\n"
            yield table(("tokens", "s", "s without error bars", "of the floor"), lengths)
    draw(found[0])
    yield f"![seconds a candidate](figures/influence-speed.svg)\n\n{found[0]['machine']}, {found[0]['refs']} rows.\n"


def _timed(share: float) -> str:
    if share == 1:
        return ""
    return f" Passes over the reference were timed on {share:.0%} of their batches, and multiplied."


def under(heading: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Results by this name, the first with the heading that all stand under."""
    for place, each in enumerate(results(name)):
        yield ("" if place else f"{heading}\n\n"), each


def precision() -> Iterator[str]:
    for heading, each in under("## Precision: agreement with fp64", "precision"):
        yield (
            f"{heading}**{each['machine']}**, {each['student']}, {each['references']} reference rows of at most "
            f"{each['longest']:,} tokens, {each['candidates']} candidates.\n"
        )
        rows = [
            (
                f"{rate['lr']:g}",
                name,
                f"{way['spearman']:.3f}",
                f"{way['pearson']:.4f}",
                f"{way['relative_error']:.2g}",
                "" if way["seconds"] is None else f"{way['seconds']:.3g}",
                "" if way["sigma"] is None else f"{way['sigma']:.1e}",
                "" if way["within_2_sigma"] is None else f"{way['within_2_sigma']:.0%}",
            )
            for rate in each["rates"]
            for name, way in rate["ways"].items()
        ]
        yield table(("lr", "way", "Spearman", "Pearson", "error / spread", "s", "σ", "within 2σ"), rows)


def passes() -> Iterator[str]:
    for heading, each in under("## A pass on a GPU", "passes"):
        yield (
            f"{heading}**{each['machine']}**, {each['student']}, {each['references']} reference rows "
            f"({each['tokens']:,} tokens): a pass over them, a step on one candidate, a first-order score.\n"
        )
        rows = [
            (
                way["weights"],
                way["products"],
                way["attention"],
                f"{way['pack_tokens']:,}",
                "yes" if way["graphs"] else "no",
                f"{way['seconds']:.3f}",
                f"{way['floor']:.0%}",
                f"{way['step_seconds']:.3f}",
                f"{way['first_order_seconds']:.3f}",
                f"{way['peak_gib']:.1f}",
            )
            for way in each["passes"]
        ]
        header = ("weights", "products", "attention", "tokens a pack", "graphs", "s a pass", "of the floor", "s a step")
        yield table((*header, "s first order", "peak GiB"), rows)


def ranks() -> Iterator[str]:
    for heading, each in under("## Memory of a rank", "ranks"):
        yield (
            f"{heading}**{each['machine']}**, {each['student']}, fp32 on CPU ranks: measured, and by\n"
            "the arithmetic of stages/influence/memory.py. Times are of ranks that share the same cores.\n"
        )
        rows = [
            (str(run["ranks"]), run["method"], f"{run['mib']:,}", f"{run['formula_mib']:,}", f"{run['seconds']:.2f}")
            for run in each["runs"]
        ]
        yield table(("ranks", "method", "MiB a rank", "by formula", "s a candidate"), rows)


def scale() -> Iterator[str]:
    for heading, each in under("## A million scores", "scale"):
        yield (
            f"{heading}**{each['machine']}**, store: {each['store']}; the model replaced by a constant.\n"
            "What remains is the stage's own work: reading, Parquet, commits, manifests, one shard after the other.\n"
            "What comes of it is then read as `aggregate` does (four columns), and the stages `aggregate` and `pairs`\n"
            "run on it, texts and all.\n"
        )
        rows = [
            (
                f"{run['candidates']:,}",
                f"{run['chunks']:,}",
                f"{run['ms']:.2f}",
                f"{run['requests']:.1f}",
                f"{run['peak_gib']:.2f}",
                f"{run['read_s']:.2f}",
                *(f"{run[name]:.1f}" if name in run else "" for name in ("aggregate_s", "pairs_s")),
            )
            for run in each["runs"]
        ]
        heads = ("candidates", "chunks", "ms each", "requests a chunk", "peak GiB", "s to read four columns")
        yield table((*heads, "s of aggregate", "s of pairs"), rows)


def incontext() -> Iterator[str]:
    for heading, each in under("## In-context scoring: the order of prompts", "incontext"):
        yield (
            f"{heading}**{each['machine']}**, SmolLM2-135M under vLLM, "
            f"{each['prompts']:,} prompts of {each['tokens'] / each['prompts']:.0f} tokens on average.\n"
            "ARTE's scores take a candidate as the one example before every preference question; the plain order goes\n"
            "question by question without a cache.\n"
        )
        rows = [
            (
                f"{way['order']}, cache {'on' if way['caching'] else 'off'}",
                f"{way['seconds']:.1f}",
                f"{way['prompts_per_second']:.1f}",
                f"{way['times_plain']:.2f}",
                f"{way['same_answers']:.1%}",
            )
            for way in each["ways"]
        ]
        yield table(("way", "s", "prompts/s", "times faster", "same answers as plain"), rows)


def draw(result: dict[str, Any]) -> None:
    """Seconds a candidate of each way, on a scale of powers of ten."""
    from stages.report.draw.axes import Scale
    from stages.report.draw.svg import Svg, line, rect, text

    seconds = {way: result["seconds"][way] for way in WAYS}
    low = math.floor(math.log10(min(seconds.values())))
    high = math.ceil(math.log10(max(seconds.values())))
    x = Scale(low, high, 110.0, 520.0)
    height = 40.0 + 34.0 * len(WAYS)
    parts = []
    for power in range(low, high + 1):
        parts.append(line(x(power), 8.0, x(power), height - 30, "grid"))
        parts.append(text(x(power), height - 12, f"{10.0**power:g} s", anchor="middle", class_="muted small"))
    for index, way in enumerate(WAYS):
        y, end = 14.0 + 34.0 * index, x(math.log10(seconds[way]))
        parts.append(rect(x.start, y, end - x.start, 20.0, "fill-a" if way == "published" else "fill-c"))
        parts.append(text(x.start - 8, y + 15, way, anchor="end", class_="small"))
        ratio = f"  {result[f'ratio_{way}']:.1f}×" if way != "published" else ""
        parts.append(text(end + 6, y + 15, f"{seconds[way]:.2f} s{ratio}", class_="small strong"))
    said = "; ".join(f"{way} {value:.2f} s" for way, value in seconds.items())
    figure = Svg(620.0, height, "".join(parts), "Seconds to score one candidate", said)
    folder = DOCS / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "influence-speed.svg").write_text(figure.standalone("influence-speed") + "\n")


if __name__ == "__main__":
    sys.exit(main())
