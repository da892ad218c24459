"""Questions as rows to learn from: an answer behind its passage and question, token by token, or filled in at once.

After examples/task_reading_comprehension_by_seq2seq.py and …_by_mlm.py of bojone/bert4keras, whose scores are published.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flaxgen.text import passages, wordpiece
from train import questions


@dataclasses.dataclass(frozen=True)
class Sample:
    """A row of unknown length. weight_T: 1 where target_T is to be learnt. target_T: what the place t is to say."""

    token_T: np.ndarray
    target_T: np.ndarray
    segment_T: np.ndarray
    weight_T: np.ndarray


def target(question: questions.Question, shown: str, lengths: passages.Lengths) -> str:
    """What is to be answered from one passage, normalised: the first answer of any passage whose parts all stand in it, or ""."""
    seen = shown[: lengths.passage - 2]
    for each in question.passages:
        if each.answer and all(part in seen for part in each.answer.split(" ")):
            return each.answer.replace(" ", ",")
    return ""


def drawn(question: questions.Question, number: int, *, seed: int, epoch: int) -> str:
    """One passage of question `number`, drawn from (seed, epoch, number), as the model reads it."""
    place = np.random.default_rng((seed, epoch, number)).integers(len(question.passages))
    return passages.normalised(question.passages[place].text)


def causal(text: wordpiece.WordPiece, question: str, shown: str, answer: str, lengths: passages.Lengths) -> Sample:
    """The row whose answer is written token by token. Segment 1 are the answer and its [SEP]; they alone are targets:

        token    [CLS] 天 晴 [SEP] 天 ？ [SEP] 晴
        target   天 晴 [SEP] 天 ？ [SEP] 晴 [SEP]
        segment  0 0 0 0 0 0 0 1
        weight   0 0 0 0 0 0 1 1

    Question and answer are cut together, the end of the longer first (of equal ones the question's).
    """
    start, end = passages.control(text, "[CLS]"), passages.control(text, "[SEP]")
    asked, said = text.encode(question), text.encode(answer)
    while len(asked) + len(said) > lengths.question + lengths.answer - 2:
        (asked if len(asked) >= len(said) else said).pop()
    prefix = [start, *text.encode(shown)[: lengths.passage - 2], end, *asked, end]
    ids = np.asarray([*prefix, *said, end], np.int32)
    segment = np.repeat(np.asarray([0, 1], np.int32), [len(prefix), len(said) + 1])
    return Sample(ids[:-1], ids[1:], segment[:-1], segment[1:].astype(np.float32))


def filled(text: wordpiece.WordPiece, question: str, shown: str, answer: str, lengths: passages.Lengths) -> Sample:
    """The row whose answer is filled in at once, all of it segment 0 (see flaxgen.text.passages.filled).

    The masks learn the answer and one [SEP] behind it; what stands behind that is not learnt.
    """
    token_T = np.asarray(passages.filled(text, text.encode(question), text.encode(shown), lengths), np.int32)
    said = [*text.encode(answer)[: lengths.answer - 1], passages.control(text, "[SEP]")]
    target_T, weight_T = np.zeros_like(token_T), np.zeros(len(token_T), np.float32)
    target_T[1 : len(said) + 1], weight_T[1 : len(said) + 1] = said, 1
    return Sample(token_T, target_T, np.zeros_like(token_T), weight_T)


def batch(samples: Sequence[Sample], width: int) -> dict[str, np.ndarray]:
    """Rows of `width` places, empty ones at the end, as flaxgen.tasks.language wants them."""
    shape = (len(samples), width)
    found = {f"{name}_BT": np.zeros(shape, np.int32) for name in ("token", "target", "segment")}
    found |= {"weight_BT": np.zeros(shape, np.float32), "valid_BT": np.zeros(shape, bool)}
    for row, each in enumerate(samples):
        length = len(each.token_T)
        for name in ("token", "target", "segment", "weight"):
            found[f"{name}_BT"][row, :length] = getattr(each, f"{name}_T")
        found["valid_BT"][row, :length] = True
    return found
