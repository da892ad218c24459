"""POST /v1/completions, as OpenAI has it (platform.openai.com/docs/api-reference/completions), with our rules under their names."""

import asyncio
import dataclasses
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flaxgen import engine, jobs, rules
from flaxgen.chains import scoring
from flaxgen.pipelines import Writer
from flaxgen.serve import events, lane, limits, metrics, texts
from flaxgen.serve.choices import Choice, Scored
from flaxgen.serve.refusal import Refusal
from flaxgen.serve.settings import Settings

TOKENS = 16  # drawn where max_tokens is left out, as at OpenAI
RULES = [field.name for field in dataclasses.fields(rules.Rule) if field.name != "max_tokens"]
WORDY = ("regex", "choices", "stop", "ban")  # fields with words of the client's
CUTS = (20, 30, 40, 60, 80, 90)  # characters after which errors cut what they quote


class Completions:
    """Continuations by a Writer."""

    task = "completions"

    def __init__(self, settings: Settings, writer: Writer, id: str):
        self.id, self.writer = id, writer
        self.texts = texts.Texts(writer, slots=settings.slots, queue=settings.queue)
        self.scoring = lane.Lane("scoring", settings.queue)

    def card(self) -> dict[str, Any]:
        return {"context": self.writer.model.config.positions, "vocabulary": len(self.writer.text)}

    def warm(self, tell: Callable[[str], None]) -> None:
        self.texts.warm(tell)
        self._scores([0, 0])

    def close(self) -> None:
        self.texts.close()
        self.scoring.close()

    async def answer(self, request: Request, wishes: dict[str, Any]) -> Response:
        return await events.unless_left(request, self._answer(wishes, request.state.deadline))

    async def _answer(self, wishes: dict[str, Any], deadline: float) -> Response:
        prompts = _several(wishes["prompt"])
        rows, most = len(prompts) * wishes["n"] if wishes["max_tokens"] != 0 else 0, self.texts.rows_at_most
        if rows > most:
            what = f"n: got {wishes['n']} for {len(prompts)} prompts, wanted at most {most} texts in all"
            raise Refusal(400, what, param="n", code="out_of_range")
        self.texts.reserve(rows)  # before work on what would be refused, and before its tables, megabytes a row, are made
        try:
            # What only the host does, for a long pattern up to a second, is done beside the loop.
            job = await asyncio.to_thread(self._job, wishes, prompts)
            choices = await self._choices(job, wishes, deadline)
            ticket = self.texts.submit(await asyncio.to_thread(self._prepared, job, wishes) if rows else [], deadline)
        except BaseException:
            self.texts.release(rows)
            raise
        metrics.READ.inc(sum(map(len, job.ids)))
        facts = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time()), "model": self.id}
        if wishes["stream"]:
            usage = bool((wishes["stream_options"] or {}).get("include_usage"))
            return events.Events(_streamed(facts, job, ticket, choices, usage), lambda: self.texts.leave(ticket))
        try:
            async for _ in _growing(ticket, choices):
                pass
        finally:
            self.texts.leave(ticket)
        return JSONResponse(facts | {"choices": [choice.piece() for choice in choices], "usage": _usage(job, choices)})

    async def _choices(self, job: jobs.Job, wishes: dict[str, Any], deadline: float) -> list[Choice]:
        """The choices before their first token; they are numbered prompt by prompt, n of each."""
        choices, logprobs = [], wishes["logprobs"]
        for text, ids, rule in zip(job.prompts, job.ids, job.rules, strict=True):
            before = None
            if wishes["echo"]:
                told = metrics.waited("scoring", partial(self._scores, ids))
                before = text, ids, [] if logprobs is None else await self.scoring.run(deadline, told)
            choices += [Choice(len(choices) + number, self.writer.text, ids, rule, logprobs, before) for number in range(job.samples)]
        if wishes["max_tokens"] == 0:
            for choice in choices:
                choice.end("length")
        return choices

    def _scores(self, ids: list[int]) -> list[Scored]:
        """What the model says of each token of a prompt after those before it; nothing of the first. One program for all lengths."""
        token_BT = np.zeros((1, self.writer.model.config.positions), np.int32)
        token_BT[0, : len(ids)] = ids
        setup, length_B = self.writer.setup, np.array([len(ids)], np.int32)
        found = scoring.scores(setup.model, setup.params, token_BT, length_B, layers=setup.layers, alternatives=limits.LOGPROBS)
        columns = (found.log_prob_BT[0].tolist(), found.top_id_BTE[0].tolist(), found.top_log_prob_BTE[0].tolist())
        told = [(value, list(zip(top, values, strict=True))) for value, top, values in zip(*columns, strict=True)]
        return [(None, []), *told[: len(ids) - 1]]

    def _job(self, wishes: dict[str, Any], prompts: list) -> jobs.Job:
        ids, setup = self._ids(prompts), self.writer.setup
        if wishes["best_of"] not in (None, wishes["n"]):
            what = f"best_of: got {wishes['best_of']}, wanted n, which is {wishes['n']}"
            raise Refusal(400, what, param="best_of", code="out_of_range")
        longest = max(map(len, ids))
        tokens = max(1, min(TOKENS, setup.positions - longest)) if wishes["max_tokens"] is None else wishes["max_tokens"]
        if longest + tokens > setup.positions:
            what = f"got {tokens} behind {longest} tokens of prompt, wanted at most {max(0, setup.positions - longest)}"
            what = f"max_tokens: {what}: the model's context holds {setup.positions}"
            raise Refusal(400, what, param="max_tokens", code="context_length_exceeded")
        seed = secrets.randbelow(limits.SEEDS) if wishes["seed"] is None else wishes["seed"]
        texts_of = [one if isinstance(one, str) else self.writer.text.decode(one) for one in prompts]
        try:
            rule = self.writer.rule.replace(**_rule(wishes))
            if tokens:
                return jobs.job(setup, texts_of, rule, samples=wishes["n"], tokens=tokens, seed=seed, ids=ids)
            # No token at all is a row that is not run, so a prompt may fill the context.
            made = jobs.job(
                setup, texts_of, rule, samples=wishes["n"], tokens=1, seed=seed, ids=[one[: setup.positions - 1] for one in ids]
            )
            return dataclasses.replace(made, ids=ids)
        except ValueError as error:
            raise _wrong(error, wishes) from None

    def _prepared(self, job: jobs.Job, wishes: dict[str, Any]) -> list[engine.Request]:
        try:
            return self.texts.prepare(job)
        except ValueError as error:
            raise _wrong(error, wishes) from None

    def _ids(self, prompts: list[str] | list[list[int]]) -> list[list[int]]:
        vocab = self.writer.model.config.vocab
        largest = max((max(one) for one in prompts if isinstance(one, list)), default=0)
        if largest >= vocab:
            raise Refusal(400, f"prompt: got the id {largest}, wanted 0 to {vocab - 1}", param="prompt", code="out_of_range")
        ids = [self.writer.text.encode(one) if isinstance(one, str) else one for one in prompts]
        if not all(ids):
            what = "prompt: it makes no token; wanted at least one character that is no blank"
            raise Refusal(400, what, param="prompt", code="out_of_range")
        return ids


def _several(prompt: Any) -> list[str] | list[list[int]]:
    """The prompts of a request that may hold one alone."""
    return prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]


async def _streamed(facts: dict, job: jobs.Job, ticket: texts.Ticket, choices: list[Choice], usage: bool) -> AsyncIterator[dict]:
    plain = facts | {"usage": None} if usage else facts
    async for choice in _growing(ticket, choices):
        if (piece := choice.piece()) is not None:
            yield plain | {"choices": [piece]}
    if usage:
        yield facts | {"choices": [], "usage": _usage(job, choices)}


async def _growing(ticket: texts.Ticket, choices: list[Choice]) -> AsyncIterator[Choice]:
    """The choices whenever they have grown, until all are done."""
    for choice in choices:
        yield choice  # which may begin with its prompt
    start, first = time.monotonic(), True
    while not all(choice.done for choice in choices):
        for number, row in (await ticket.news()).items():
            if first:
                metrics.FIRST_TOKEN_SECONDS.observe(time.monotonic() - start)
                first = False
            metrics.DRAWN.inc(len(row) - choices[number].tokens)
            choices[number].grow(row)
            yield choices[number]


def _rule(wishes: dict[str, Any]) -> dict[str, Any]:
    """What a request says of its rule, under the names of flaxgen.Rule."""
    found = {name: value for name, value in wishes.items() if name in RULES and value is not None}
    if "logit_bias" in found:
        found["logit_bias"] = {int(token): value for token, value in found["logit_bias"].items()}
    return found


def _wrong(error: ValueError, wishes: dict[str, Any]) -> Refusal:
    """The error of a rule, by the name of its field, without the words that the client wrote."""
    said = str(error)
    own = [one for name in WORDY for one in _listed(wishes[name]) if isinstance(one, str)]
    for text in sorted(own, key=len, reverse=True):
        for quoted in sorted({repr(text), *(repr(text)[:cut] for cut in CUTS)}, key=len, reverse=True):
            said = said.replace(quoted, "it")
    field = next((name for name in RULES if wishes.get(name) is not None and re.search(rf"\b{name}\b", said)), None)
    if any(len(text) > 3 and text in said for text in own):
        said = f"{field or 'the rule'}: it is not one that can be served"
    return Refusal(400, said, param=field, code="rule")


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [value]


def _usage(job: jobs.Job, choices: list[Choice]) -> dict[str, int]:
    read, drawn = sum(map(len, job.ids)), sum(choice.tokens for choice in choices)
    return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}
