"""vLLM itself, on a tiny random Llama: in a process of its own, since it changes torch for good."""

from typing import Any

import pytest

from tests.support import in_own_process, tiny_llama

SCRIPT = """
import json, sys, time
from dataclasses import asdict, replace
from pathlib import Path

from stages.contract.errors import Interrupted
from stages.generation.engines.base import open_engine
from stages.generation.prompts import chat, templated
from stages.generation.request import Request
from stages.generation.settings import EngineSettings, SamplingSettings

def stop():
    raise Interrupted

model = Path(sys.argv[1])
engine = open_engine(EngineSettings(kv_cache_gib=0.25, max_num_seqs=8, max_model_len=256), model)
make = templated(model)
sampling = SamplingSettings(max_tokens=12, top_p=1)
prompt = make(chat("Name a bird."), "<instruction>")
asked = [Request(prompt, seed, sampling) for seed in (1, 2, 3)]
asked += [Request(make(chat(text), ""), 4, sampling) for text in ("Name a bird, " * 15, "a b " * 200)]
first = engine.generate(asked, lambda: None)
try:
    engine.generate(asked, stop)
except Interrupted:
    pass
again = engine.generate(asked, lambda: None)
mark = first[0].text[2:4]
stopped = engine.generate([replace(asked[0], stop=(mark,))], lambda: None)
Path(sys.argv[2]).write_text(json.dumps({
    "first": [asdict(each) for each in first], "again": [asdict(each) for each in again],
    "mark": mark, "stopped": asdict(stopped[0]), "prompt_tokens": len(prompt.token_ids),
}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("vllm")
    # heads of 64: vLLM's CPU attention has none of 8
    model = tiny_llama(folder / "model", hidden=128, heads=2)
    return in_own_process(SCRIPT, folder, model)


def test_equal_seeds_give_equal_text_and_others_another(told: Any) -> None:
    assert told["first"] == told["again"]
    texts = [each["text"] for each in told["first"][:3]]
    assert len(set(texts)) == 3


def test_the_prompt_goes_in_as_it_is(told: Any) -> None:
    assert told["first"][0]["prompt_tokens"] == told["prompt_tokens"]


def test_it_stops_at_a_text_and_keeps_it(told: Any) -> None:
    assert told["stopped"]["finish_reason"] == "stop"
    assert told["stopped"]["text"].endswith(told["mark"])
    assert told["first"][0]["text"].startswith(told["stopped"]["text"])


def test_a_prompt_that_fills_the_context_is_answered_with_the_reason(told: Any) -> None:
    assert told["first"][4]["finish_reason"] == "prompt_too_long"
    assert told["first"][4]["prompt_tokens"] > 256
    assert told["first"][3]["output_tokens"] > 0
