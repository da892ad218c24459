"""The routes at which models work: who answers each, what it takes and what it gives."""

from typing import NamedTuple

from flaxgen.serve import limits, schemas
from flaxgen.serve.kinds import Fields
from flaxgen.serve.schemas import Schema


class Work(NamedTuple):
    task: str  # of the part that answers
    option: str  # of `flaxgen serve`, which loads one
    summary: str
    takes: Fields
    gives: Schema  # by media type


WORK = {
    f"/v1/{one.task}": one
    for one in (
        Work("completions", "--model", "Continue texts", limits.COMPLETIONS, schemas.COMPLETIONS),
        Work("embeddings", "--encoder", "Vectors of texts", limits.EMBEDDINGS, schemas.EMBEDDINGS),
        Work("couplets", "--couplets", "Answer the upper line of a couplet", limits.COUPLETS, schemas.COUPLETS),
        Work("reading", "--reader", "Answer a question from passages", limits.READING, schemas.READING),
        Work("images", "--painter", "Paint pictures", limits.IMAGES, schemas.IMAGES),
    )
}
