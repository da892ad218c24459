"""POST /v1/reading: an answer to a question from passages, and where it stands."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flaxgen import asking, reader
from flaxgen.serve import events, lane, metrics
from flaxgen.serve.refusal import Refusal
from flaxgen.serve.settings import Settings

# One passage costs as much as two, three as much as ten: more counts would take longer to get ready.
PROGRAMS = asking.Programs(counts=(2, 10), beams=4)
FIELDS = ("text", "quote", "passage", "span", "confidence", "score", "chances", "dismissed", "cut", "question_cut")


class Reading:
    """Answers by flaxgen.Reader."""

    task = "reading"

    def __init__(self, settings: Settings, given: reader.Reader, id: str):
        self.id = id
        self.reader = reader.Reader(given.model, given.params, given.text, form=given.form, lengths=given.lengths, programs=PROGRAMS)
        self.lane = lane.Lane(self.task, settings.queue)

    def card(self) -> dict[str, Any]:
        lengths = self.reader.lengths
        return {"passage_tokens": lengths.passage, "question_tokens": lengths.question, "answer_tokens": lengths.answer}

    def warm(self, tell: Callable[[str], None]) -> None:
        for count in PROGRAMS.counts:
            for mode in ("extractive", "generative"):
                tell(f"reading {count} passages, {mode}")
                self.reader("?", ["."] * count, mode=mode)

    def close(self) -> None:
        self.lane.close()

    async def answer(self, request: Request, wishes: dict[str, Any]) -> Response:
        if not wishes["question"].strip():
            raise Refusal(400, "question: it is blank; ask something", param="question", code="blank")
        if not any(map(str.strip, wishes["passages"])):
            what = f"passages: got {len(wishes['passages'])} with text in none of them, wanted one at least to read the answer from"
            raise Refusal(400, what, param="passages", code="blank")
        if self.reader.form == "filled" and wishes["beams"] > 1:
            what = f"beams: got {wishes['beams']}, wanted 1 of this reader, which fills answers in at once"
            raise Refusal(400, what, param="beams", code="out_of_range")
        found = metrics.waited(self.task, lambda: self._found(wishes))
        return await events.unless_left(request, self._answer(self.lane.run(request.state.deadline, found)))

    async def _answer(self, finding) -> Response:
        found = await finding
        return JSONResponse({"object": "answer", "model": self.id} | {name: getattr(found, name) for name in FIELDS})

    def _found(self, wishes: dict[str, Any]) -> reader.Answer:
        return self.reader(wishes["question"], wishes["passages"], mode=wishes["mode"], beams=wishes["beams"])
