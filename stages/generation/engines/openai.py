"""Any server with OpenAI's chat API: OpenAI, vLLM's `serve`, llama.cpp and others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from stages.contract.errors import ExitCode, StageError, bad_settings
from stages.generation.engines.base import CheckStop
from stages.generation.request import Completion, FinishReason, Request, cut_at_stop, too_long
from stages.generation.settings import EngineSettings

WAKE_S = 1.0  # how often a waiting engine looks whether it should stop
_TOO_LONG = ("context_length_exceeded", "maximum context length", "context length", "context window")


class OpenAIEngine:
    """Sends the requests side by side. Retries, pauses and Retry-After are the client library's.

    The seed is passed on; whether the server honours it is the server's affair.
    """

    devices = 0

    def __init__(self, settings: EngineSettings) -> None:
        from openai import OpenAI

        self._settings = settings
        self._client = OpenAI(
            base_url=settings.base_url,
            # a local server asks for no key; the client insists on one
            api_key=os.environ.get(settings.key_variable) or "none",
            max_retries=settings.attempts - 1,
            timeout=settings.timeout_s,
        )

    def generate(self, requests: Sequence[Request], check_stop: CheckStop) -> list[Completion]:
        """Raises StageError: STORE (try again) when the server cannot be reached or stays overloaded;
        BAD_SETTINGS for a refused key, an unknown model or a refused request."""
        pool = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="openai")
        futures = [pool.submit(self._ask, request) for request in requests]
        try:
            waiting: set[Future[Completion]] = set(futures)
            while waiting:
                check_stop()
                done, waiting = wait(waiting, timeout=WAKE_S, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()  # the first error ends the chunk, instead of coming after the last answer
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, request: Request) -> Completion:
        import openai

        where = f"{self._settings.base_url} ({self._settings.model})"
        try:
            answer = self._client.chat.completions.create(**self._body(request))
        except openai.BadRequestError as error:
            if any(mark in str(error) for mark in _TOO_LONG):
                return too_long(0)
            raise bad_settings(f"the server refuses the request: {error.message}", where=where) from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise bad_settings(
                f"the server refuses the key: {error.message}", where=where, hint=f"set {self._settings.key_variable}"
            ) from error
        except openai.NotFoundError as error:
            raise bad_settings(
                f"the server knows no such model or address: {error.message}",
                where=where,
                hint="check engine.model, and that engine.base_url ends in /v1",
            ) from error
        except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
            raise StageError(
                f"no answer in {self._settings.attempts} attempts: {error.message}",
                code=ExitCode.STORE,
                where=where,
                hint="is the server up? engine.concurrency and engine.attempts help against limits",
            ) from error
        except openai.APIStatusError as error:
            raise bad_settings(f"the server refuses the request: {error.message}", where=where) from error
        return _completion(answer, request, continued=self._settings.server == "vllm")

    def _body(self, request: Request) -> dict[str, Any]:
        sampling, prefill = request.sampling, request.prompt.prefill
        messages: list[Any] = list(request.prompt.messages)
        if prefill:
            messages.append({"role": "assistant", "content": prefill})
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": messages,
            "seed": request.seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "presence_penalty": sampling.presence_penalty,
            "max_tokens": sampling.max_tokens,
        }
        if self._settings.server == "vllm":
            extra: dict[str, Any] = {"repetition_penalty": sampling.repetition_penalty}
            if sampling.top_k is not None:
                extra["top_k"] = sampling.top_k
            if prefill:
                extra |= {"continue_final_message": True, "add_generation_prompt": False}
            if request.stop:
                body["stop"] = list(request.stop)
                extra["include_stop_str_in_output"] = True
            body["extra_body"] = extra
        return body


def _completion(answer: Any, request: Request, *, continued: bool) -> Completion:
    usage = answer.usage
    if not answer.choices:  # as some gateways answer a prompt that they filter
        return Completion("", "stop", usage.prompt_tokens if usage else 0, 0)
    choice = answer.choices[0]
    text = choice.message.content or ""
    reason: FinishReason = "length" if choice.finish_reason == "length" else "stop"
    # OpenAI leaves out the text that stopped it, so that "stopped there" and "ended its turn" look alike:
    # such a server is given no stop text, and the cut is made here.
    cut = None if continued else cut_at_stop(text, request.stop)
    if cut is not None:
        text, reason = cut, "stop"
    return Completion(text, reason, usage.prompt_tokens if usage else 0, usage.completion_tokens if usage else 0)
