"""A question and passages in, an answer and where it stands out."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from flaxgen import asking, loop, weights
from flaxgen.chains import reading, reading_at_once
from flaxgen.errors import Mismatch
from flaxgen.models import transformer
from flaxgen.protocols import Params
from flaxgen.text import passages, spans


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a Reader answers.

    text: as the model wrote it; empty where no passage has an answer. passage: the number of the supporting passage, which of all that hold
    the answer finds it most probable; where none holds it (a generative answer may stand nowhere), of all that were heard. span: where the
    answer stands in that passage, passages[passage][slice(*span)]; None where it does not.
    confidence: in [0, 1], how probable the supporting passage by itself finds the whole answer and its end; of an empty answer, how
    probable silence is to the passage that is least sure of it. `filled` answers have the mean over tokens in place of the whole.
    score: what answers were compared by, the sum of log votes over tokens, or the votes of the passages that filled in this answer.
    chances: the confidence of each passage in this answer. dismissed: passages that said at once they have none. cut: those not read to
    their end; question_cut: whether the question was not.
    """

    text: str
    question: str
    passages: tuple[str, ...]
    passage: int | None
    span: tuple[int, int] | None
    confidence: float
    score: float
    chances: tuple[float, ...]
    dismissed: tuple[int, ...]
    cut: tuple[int, ...]
    question_cut: bool = False

    @property
    def quote(self) -> str:
        """The answer as it stands in its passage, with the capitals, signs and rare characters that a vocabulary may lack; else `text`."""
        return self.text if self.span is None else self.passages[self.passage][slice(*self.span)]


class Reader:
    """Answers questions from passages.

    >>> reader = Reader.load("weights/reader")
    >>> answer = reader("青蛙的幼体叫什么？", ["青蛙的幼体叫蝌蚪。", "青蛙吃昆虫。"])
    >>> answer.text, answer.passage, answer.span, answer.confidence

    form: "causal" writes an answer token by token, all passages voting on each (chains.reading); "filled" fills it in at once, a passage at
        a time (chains.reading_at_once). By default what the folder says it was trained for. lengths: of passages, questions and answers in
        tokens; by default the folder's, else 256, 64 and 32, or as much less of each as the model has fewer positions.
    longer: what has more tokens than that is "cut" off at its end, as in training, and the answer tells which; or "refuse" it.
    programs: the sizes of questions that are compiled for, and the largest that are answered; by default many, so that little is padded.
    """

    def __init__(
        self,
        model: transformer.Transformer,
        params: Params,
        text: Any,
        *,
        form: passages.Form = "causal",
        lengths: passages.Lengths | None = None,
        longer: asking.Longer = "cut",
        programs: asking.Programs | None = None,
    ):
        if form not in ("causal", "filled") or longer not in ("cut", "refuse"):
            raise ValueError(f'form={form!r}, longer={longer!r}: wanted "causal" or "filled", and "cut" or "refuse"')
        _check_model(model, form)
        if text is None:
            raise Mismatch("this model has no vocabulary, so it cannot read; convert it with --vocab FILE")
        for name in ("[CLS]", "[SEP]", *(["[MASK]"] if form == "filled" else [])):
            passages.control(text, name)
        if lengths is not None and not isinstance(lengths, passages.Lengths):
            raise ValueError(f"lengths={lengths!r}: wanted flaxgen.text.passages.Lengths, such as Lengths(256, 64, 32)")
        self.lengths = lengths or _scaled(model.config, form)
        longest = passages.longest(form, self.lengths)
        if model.config.position == "learned" and longest > model.config.positions:
            raise ValueError(f"{self.lengths} make rows of {longest} tokens; the model has {model.config.positions}: lower them")
        application = "unilm" if form == "causal" else "encoder"
        self.model = transformer.Transformer(dataclasses.replace(model.config, application=application), model.dtype)
        self.params, self.text, self.form, self.longer, self.programs = params, text, form, longer, programs

    @classmethod
    def load(cls, folder, *, dtype: weights.Dtype | None = None, **settings) -> "Reader":
        """The reader of a flaxgen folder; its config.json may say what it was trained for (see `trained`).

        dtype: of its weights, as in flaxgen.load. settings: as of Reader.
        """
        model, params, text = weights.load(folder, dtype=dtype)
        try:
            return cls(model, params, text, **trained(weights.describe(folder)) | settings)
        except Mismatch as error:
            raise Mismatch(f"{folder} cannot read: {error}. Readers are trained by python -m train reading") from None

    def __call__(
        self,
        question: str | Sequence[str],
        passages: Sequence[str] | Sequence[Sequence[str]],
        *,
        mode: reading.Mode = "extractive",
        beams: int = 1,
    ) -> Answer | list[Answer]:
        """The answer to a question from its passages; for a list of questions, each with its own list of passages, a list.

        mode: an "extractive" answer is a run of tokens of one passage, letter for letter; a "generative" one is whatever the model writes.
        beams: how many answers are followed at a time.
        """
        if isinstance(question, str):
            return next(self.answers([(question, passages)], mode=mode, beams=beams))
        if not isinstance(question, Sequence):
            raise ValueError(f"question={question!r:.60}: wanted a text, or a list of them")
        if isinstance(passages, str) or not isinstance(passages, Sequence):
            raise ValueError(f"passages={passages!r:.60}: wanted a list of texts for each of {len(question)} questions")
        if len(question) != len(passages):
            raise ValueError(f"{len(question)} questions and {len(passages)} lists of passages; wanted one list for each question")
        return list(self.answers(list(zip(question, passages, strict=True)), mode=mode, beams=beams))

    def answers(self, asked: Sequence[tuple[str, Sequence[str]]], *, mode: reading.Mode = "extractive", beams: int = 1) -> Iterator[Answer]:
        """The answers to (question, passages), in their order; questions of like sizes are read together, and none compiles anew."""
        if mode not in ("extractive", "generative"):
            raise ValueError(f'mode={mode!r}: wanted "extractive" or "generative"')
        if type(beams) is not int or beams < 1:
            raise ValueError(f"beams={beams!r}: wanted a whole number of at least 1")
        if self.programs and beams > self.programs.beams:
            raise ValueError(f"beams={beams}: wanted at most {self.programs.beams}, which this reader's programs have")
        if self.form == "filled" and beams != 1:
            raise ValueError(f"beams={beams} of a reader that fills answers in at once; leave it at 1")
        ready = [self._asked(number, len(asked), *each) for number, each in enumerate(asked)]
        most = passages.longest(self.form, self.lengths) - (self.lengths.answer if self.form == "causal" else 0)
        found: dict[int, Answer] = {}
        turn = 0
        for size, block in asking.blocks(ready, most, self.programs and self.programs.counts):
            found |= dict(zip(block, self._read([ready[number] for number in block], size, mode, beams), strict=True))
            while turn in found:
                yield found.pop(turn)
                turn += 1

    def _asked(self, number: int, count: int, question: str, given: Sequence[str]) -> asking.Asked:
        try:
            most = (self.programs.counts if self.programs else asking.COUNTS)[-1]
            return asking.ask(self.text, question, given, self.form, self.lengths, self.longer, most)
        except ValueError as error:
            raise ValueError(f"question {number}: {error}" if count > 1 else str(error)) from None

    def _read(self, block: list[asking.Asked], size: asking.Size, mode: reading.Mode, beams: int) -> list[Answer]:
        end, limit = self.text.control["[SEP]"], self.lengths.answer
        room, vocab = passages.room(self.form, self.lengths), self.model.config.vocab
        given = asking.prompt(block, size, mode=mode, limit=limit, room=room, vocab=vocab)
        if self.form == "filled":
            chain = reading_at_once.AtOnce(self.model, end, mode, limit)
            found = loop.generate(chain, self.params, jax.random.key(0), given, steps=1)
            return [self._filled(asked, found.rows()[row], found.score_BP[row]) for row, asked in enumerate(block)]
        if self.programs:
            given, beams = given.replace(beams_B=np.full(size.questions, beams, np.int32)), self.programs.beams
        chain = reading.Reading(self.model, end, mode, beams, limit)
        found = loop.generate(chain, self.params, jax.random.key(0), given, steps=limit)
        return [self._written(asked, found, row) for row, asked in enumerate(block)]

    def _written(self, asked: asking.Asked, found: reading.Found, row: int) -> Answer:
        """The answer that the passages wrote together."""
        count, ids = len(asked.rows), found.rows()[row]
        ids = ids[:-1] if ids[-1] == self.text.control["[SEP]"] else ids
        remain_P = found.remain_BP[row, :count]
        chances = np.exp(found.log_prob_BP[row, :count]) if ids else found.silence_BP[row, :count]
        facts = {
            "score": float(found.score_B[row]),
            "chances": tuple(chances.tolist()),
            "dismissed": tuple(np.flatnonzero(~remain_P).tolist()),
        }
        if not ids:
            return self._answer(asked, "", None, None, float(chances.min()), **facts)
        places = [spans.place(own, ids) if heard else None for own, heard in zip(asked.own, remain_P, strict=True)]
        held = [p for p, place in enumerate(places) if place is not None] or np.flatnonzero(remain_P).tolist()
        best = max(held, key=lambda p: chances[p])
        return self._answer(asked, self.text.decode(ids), best, self._span(asked, best, ids), float(chances[best]), **facts)

    def _filled(self, asked: asking.Asked, rows: list[list[int]], score_P: np.ndarray) -> Answer:
        """The answer that most of the passages' votes are for."""
        end = self.text.control["[SEP]"]
        each = [ids[:-1] if ids[-1] == end else ids for ids in rows[: len(asked.rows)]]
        texts, scores = [self.text.decode(ids) for ids in each], score_P[: len(each)].tolist()
        text, votes = reading_at_once.elect(texts, scores)
        agree = [p for p, own in enumerate(texts) if own == text]
        chances = tuple(score if p in agree else 0.0 for p, score in enumerate(scores))
        facts = {"score": votes, "chances": chances, "dismissed": tuple(p for p, own in enumerate(texts) if not own)}
        if not text:
            return self._answer(asked, "", None, None, min(scores), **facts)
        best = max(agree, key=lambda p: scores[p])
        return self._answer(asked, text, best, self._span(asked, best, each[best]), scores[best], **facts)

    def _answer(self, asked: asking.Asked, text: str, passage, span, confidence: float, **facts) -> Answer:
        return Answer(
            text, asked.question, asked.passages, passage, span, confidence, cut=asked.cut, question_cut=asked.question_cut, **facts
        )

    def _span(self, asked: asking.Asked, passage: int, ids: list[int]) -> tuple[int, int] | None:
        """Where tokens stand in a passage, in characters."""
        place = spans.place(asked.own[passage], ids)
        if place is None:
            return None
        pieces = spans.pieces(self.text, passages.normalised(asked.passages[passage]))[place : place + len(ids)]
        return pieces[0].start, pieces[-1].end


def trained(card: dict[str, Any]) -> dict[str, Any]:
    """What a folder says that a reader of it is to be, as settings of Reader.

    config.json   "source": {"reading": {"form": "causal", "passage": 256, "question": 64, "answer": 32}}, or the same among its "settings"
    """
    source = card.get("source")
    named = {} if not isinstance(source, dict) else source.get("reading") or source.get("settings")
    if not isinstance(named, dict) or not {"passage", "question", "answer"} <= {*named}:
        return {}
    lengths = passages.Lengths(*(named[name] for name in ("passage", "question", "answer")))
    return {"lengths": lengths} | ({"form": named["form"]} if "form" in named else {})


def _check_model(model, form: passages.Form) -> None:
    """ValueError unless the model can read so."""
    config = getattr(model, "config", None)
    if getattr(config, "architecture", None) != "transformer":
        raise Mismatch(
            f"a {getattr(config, 'architecture', type(model).__name__)!r} cannot read passages; wanted a transformer such as BERT"
        )
    if not config.speaks:
        raise Mismatch('this model has no logits over its vocabulary (no "mlm" among its outputs), so it cannot write an answer')
    if form == "causal" and config.segments < 2:
        raise Mismatch(f"this model has {config.segments} segments, wanted 2, which tell passage and question from the answer (UniLM)")


def _scaled(config, form: passages.Form) -> passages.Lengths:
    """The published lengths, or as much less of each as the model has fewer positions."""
    wanted = passages.Lengths()
    more = passages.longest(form, wanted) - wanted.row
    share = min(1.0, (config.positions - more) / wanted.row) if config.position == "learned" else 1.0
    try:
        return passages.Lengths(*(math.floor(share * number) for number in dataclasses.astuple(wanted)))
    except ValueError:
        raise Mismatch(f"a model of {config.positions} positions is too short to read passages; give lengths= that fit") from None
