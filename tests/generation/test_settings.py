"""Settings that do not fit together are refused with the field's name."""

from typing import Any

import pytest
from pydantic import ValidationError

from stages.contract.spec import output_settings
from stages.generation.settings import EngineSettings, GenerationSettings, ResponseSampling
from stages.instructions.settings import InstructionsSettings
from stages.responses.settings import ResponsesSettings

SERVER = {"kind": "openai", "base_url": "http://localhost:1/v1", "model": "m"}
REFUSED: dict[str, tuple[type[Any], dict[str, Any], str]] = {
    "an openai engine without address": (EngineSettings, {"kind": "openai", "model": "m"}, "base_url"),
    "an address without scheme": (EngineSettings, SERVER | {"base_url": "localhost:1"}, "http://"),
    "another engine's setting": (EngineSettings, {"kind": "transformers", "kv_cache_gib": 2}, "kv_cache_gib"),
    "a key that is the store's": (EngineSettings, SERVER | {"key_variable": "AWS_SECRET_ACCESS_KEY"}, "_API_KEY"),
    "a model without server": (EngineSettings, {"model": "gpt-4o"}, "model is a setting of openai"),
    "top_k for OpenAI": (GenerationSettings, {"engine": SERVER, "sampling": {"top_k": 5}}, "top_k"),
    "a template without examples": (InstructionsSettings, {"template": "Write!", "prefill": ""}, "neither template"),
    "a template with an unknown name": (InstructionsSettings, {"template": "{{ examples }}{{ topic }}"}, "topic"),
    "a broken template": (InstructionsSettings, {"template": "{% for example in examples %}"}, "not a Jinja template"),
    "no room for seeds": (InstructionsSettings, {"examples": 2, "generated_examples": 2}, "generated_examples"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_do_not_fit_are_refused(name: str) -> None:
    model, values, words = REFUSED[name]
    with pytest.raises(ValidationError, match=words):
        model.model_validate(values)


def test_a_vllm_server_takes_top_k() -> None:
    GenerationSettings.model_validate({"engine": SERVER | {"server": "vllm"}, "sampling": {"top_k": 5}})


def test_setting_one_sampling_value_of_responses_leaves_their_other_defaults() -> None:
    assert ResponsesSettings.model_validate({"sampling": {"max_tokens": 10}}).sampling == ResponseSampling(
        max_tokens=10
    )
    assert ResponsesSettings().sampling.temperature == 0.6


def test_what_only_costs_time_is_not_in_the_fingerprint() -> None:
    cheap = InstructionsSettings.model_validate({})
    dear = InstructionsSettings.model_validate(
        {
            "chunk_rows": 4,
            "least_parsed": 0.9,
            "gate_after": 1,
            "engine": {"max_num_seqs": 8, "tensor_parallel_size": 2},
        }
    )
    assert output_settings(cheap) == output_settings(dear)
    assert output_settings(cheap) != output_settings(InstructionsSettings(prompts=7))


def test_every_field_says_what_it_is() -> None:
    models = (EngineSettings, ResponseSampling, InstructionsSettings, ResponsesSettings)
    assert [name for model in models for name, field in model.model_fields.items() if not field.description] == []
