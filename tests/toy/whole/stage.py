"""Writes a folder with a sub-folder, a table and a figure; may take its time and then looks whether it should stop."""

from __future__ import annotations

import time

import pyarrow as pa

from stages.contract.context import StageContext


def run(context: StageContext) -> None:
    settings = context.settings
    print(f"the word is {settings.word}", flush=True)
    end = time.monotonic() + settings.wait_s
    while time.monotonic() < end:
        context.check_stop()
        time.sleep(0.02)
    folder = context.scratch / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "word.txt").write_text(settings.word)
    (folder / "deep" / "long.bin").write_bytes(settings.word.encode() * 10_000)
    context.publish(
        tables={"rows": pa.table({"word": [settings.word]})}, folder=folder, figures={"letters": len(settings.word)}
    )
