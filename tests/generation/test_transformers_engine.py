"""The fallback engine on a tiny random Llama."""

from dataclasses import replace
from pathlib import Path

import pytest

from stages.contract.errors import Interrupted
from stages.generation.engines.transformers import TransformersEngine
from stages.generation.prompts import PromptMaker, chat, templated
from stages.generation.request import Request
from stages.generation.settings import EngineSettings, SamplingSettings
from tests.support import tiny_llama

SHORT, LONG = "Name a bird.", "Name a bird, " * 20
SAMPLING = SamplingSettings(max_tokens=12, top_p=1)


def never() -> None:
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def make(model: Path) -> PromptMaker:
    return templated(model)


@pytest.fixture(scope="module")
def engine(model: Path) -> TransformersEngine:
    return TransformersEngine(EngineSettings(kind="transformers", batch_size=4, dtype="float32"), model)


def requests(make: PromptMaker, *texts: str) -> list[Request]:
    return [Request(make(chat(text), ""), seed, SAMPLING) for seed, text in enumerate(texts)]


def test_an_output_does_not_depend_on_its_batch(engine: TransformersEngine, make: PromptMaker) -> None:
    asked = requests(make, SHORT, LONG, SHORT, "Hello", LONG, "Why?")
    together = engine.generate(asked, never)
    alone = [engine.generate([request], never)[0] for request in asked]
    assert together == alone


def test_equal_seeds_give_equal_text_and_others_another(engine: TransformersEngine, make: PromptMaker) -> None:
    first, again, other = requests(make, SHORT, SHORT, SHORT)
    texts = [each.text for each in engine.generate([first, replace(again, seed=first.seed), other], never)]
    assert texts[0] == texts[1] != texts[2]


def test_the_plain_forward_pass_agrees_with_the_cached_one(
    engine: TransformersEngine, make: PromptMaker, model: Path
) -> None:
    """Greedy decoding against a loop that computes every token from the start, without padding and cache."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    asked = [
        replace(each, sampling=SamplingSettings(temperature=0, max_tokens=6)) for each in requests(make, SHORT, LONG)
    ]
    for request, completion in zip(asked, engine.generate(asked, never), strict=True):
        ids = list(request.prompt.token_ids or ())
        start = len(ids)
        while len(ids) < start + completion.output_tokens:
            ids.append(int(plain(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert completion.text == tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_it_stops_at_a_text_and_keeps_it(engine: TransformersEngine, make: PromptMaker) -> None:
    request = requests(make, SHORT)[0]
    whole = engine.generate([request], never)[0]
    mark = whole.text[2:4]
    stopped = engine.generate([replace(request, stop=(mark,))], never)[0]
    assert stopped.text == whole.text[: whole.text.index(mark) + len(mark)]
    assert stopped.finish_reason == "stop"
    assert stopped.output_tokens < whole.output_tokens


def test_it_says_that_an_output_was_cut(engine: TransformersEngine, make: PromptMaker) -> None:
    request = requests(make, SHORT)[0]
    (answer,) = engine.generate([replace(request, sampling=SamplingSettings(max_tokens=1))], never)
    assert (answer.finish_reason, answer.output_tokens) == ("length", 1)


def test_a_prompt_that_fills_the_context_is_answered_with_the_reason(
    engine: TransformersEngine, make: PromptMaker
) -> None:
    fits, overlong = requests(make, SHORT, "word " * 600)
    first, second = engine.generate([overlong, fits], never)
    assert (first.finish_reason, first.text, first.prompt_tokens) == (
        "prompt_too_long",
        "",
        len(overlong.prompt.token_ids or ()),
    )
    assert second.output_tokens > 0


def test_it_can_be_stopped(engine: TransformersEngine, make: PromptMaker) -> None:
    def stop() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        engine.generate(requests(make, SHORT), stop)
