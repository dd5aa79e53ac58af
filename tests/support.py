"""What tests of several areas share: ready-made artifacts, running a stage, a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.contract.artifact import Artifact
from stages.contract.canonical import digest
from stages.contract.catalog import spec
from stages.contract.chunks import ShardWriter
from stages.contract.execute import run_shard
from stages.contract.fingerprint import artifact_key, fingerprint
from stages.contract.ledger import Meter
from stages.contract.manifest import Layout, fix_layout
from stages.contract.store import Store
from stages.contract.task import ArtifactInput, Input, ModelInput, Shards, Task, write_task

REPOSITORY = Path(__file__).resolve().parents[1]
RUN = "test"
CORPUS = (
    "The quick brown fox jumps over the lazy dog, and then it sleeps for an hour.",
    "Write a short story about a river that forgot where the sea is.",
    "Explain in one sentence why the sky is blue: short waves scatter more than long ones.",
    "List three fruits: apple, banana, cherry. Count from one to ten: 1 2 3 4 5 6 7 8 9 10.",
    "user assistant system\n<instruction>Give me five ideas for a birthday party.</instruction>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def in_own_process(script: str, folder: Path, *arguments: object, timeout: float = 900) -> Any:
    """What a script leaves as JSON in the file that is its last argument: for what changes a process for good, as vLLM
    does."""
    (folder / "script.py").write_text(script)
    told = folder / "told.json"
    done = subprocess.run(
        [sys.executable, folder / "script.py", *map(str, arguments), told],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(told.read_text())


def publish(
    store: Store,
    stage: str,
    *,
    tables: Mapping[str, pa.Table] | None = None,
    folder: Path | None = None,
    figures: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Input] | None = None,
    meter: Meter | None = None,
) -> ArtifactInput:
    """A complete artifact of one shard that looks as if `stage` had made it; every call makes another one."""
    made_up = digest([stage, uuid.uuid4().hex])
    task = Task(
        run=RUN,
        node=stage,
        stage=stage,
        settings={},
        inputs=dict(inputs or {}),
        output=artifact_key(stage, made_up),
        fingerprint=made_up,
    )
    layout = fix_layout(store, task.output, Layout(shards=1, chunk_rows=1))
    with tempfile.TemporaryDirectory() as scratch:
        writer = ShardWriter(store, task, 0, layout, "ready-made", meter or Meter(), Path(scratch))
        writer.add(tables or {}, folder, figures or {})
        writer.publish()
    return artifact_input(Artifact(store, task.output))


def artifact_input(artifact: Artifact, folder: str = "") -> ArtifactInput:
    """An artifact as another task's input."""
    return ArtifactInput(key=artifact.key, digest=artifact.manifest.digest, folder=folder)


def model_input(folder: Path) -> ModelInput:
    """A model folder on this machine as a task's input."""
    return ModelInput(source={"model": str(folder)}, digest=digest(str(folder)))


def make_task(
    stage: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Input] | None = None,
    *,
    shards: int = 1,
    node: str | None = None,
    **fields: Any,
) -> Task:
    """A task as a sequencer would write it: key and fingerprint follow from settings and inputs."""
    declared, given = spec(stage), dict(inputs or {})
    mark = fingerprint(
        declared,
        declared.settings.model_validate(settings),
        {name: each.identity for name, each in given.items()},
    )
    return Task(
        run=RUN,
        node=node or stage.rpartition(".")[2],
        stage=stage,
        settings=dict(settings),
        inputs=given,
        output=artifact_key(stage, mark),
        fingerprint=mark,
        shards=Shards(count=shards, indices=tuple(range(shards))),
        **fields,
    )


def run_stage(
    store: Store,
    stage: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Input] | None = None,
    *,
    shards: int = 1,
    node: str | None = None,
) -> Artifact:
    """Runs every shard of a stage in this process, one after the other; what stops one comes out as it is."""
    task = make_task(stage, settings, inputs, shards=shards, node=node)
    write_task(store, task)
    for shard in range(shards):
        run_shard(store, task, shard, threading.Event())
    return Artifact(store, task.output)


def start_stage(uri: str, index: int = 0, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """`python -m stages URI` as a Job's pod number `index` would start it; its output is in the two pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages", uri],
        cwd=REPOSITORY,
        env={**os.environ, "JOB_COMPLETION_INDEX": str(index), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stage_process(
    uri: str, index: int = 0, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """`start_stage`, waited for."""
    process = start_stage(uri, index, env)
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def tiny_llama(
    folder: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    hidden: int = 32,
    heads: int = 4,
    vocabulary: int = 384,
    length: int = 512,
    corpus: Iterable[str] = CORPUS,
    words: Sequence[str] = (),
) -> Path:
    """A random Llama with a byte-level BPE tokenizer and a ChatML template, as an fp32 Hugging Face folder.

    The tokenizer encodes any text; its ids are the same for every seed, so that two
    seeds make a teacher and a student. `<|im_end|>` is the end of a turn (EOS), `<|endoftext|>` pads. `words` are one
    token each, so that even a random model writes one now and then.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(vocabulary, length, corpus)
    tokenizer.add_tokens(list(words))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=hidden,
                intermediate_size=2 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=max(1, heads // 2),
                max_position_embeddings=length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                tie_word_embeddings=True,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(vocabulary: int, length: int, corpus: Iterable[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=length,
        chat_template=CHAT_TEMPLATE,
    )
