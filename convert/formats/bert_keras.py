"""BERT and its kin, GPT-2 and GPT2_ML as bert4keras's models give them to Keras's HDF5 files: a layer's weights by number. Read only."""

import dataclasses

from convert.formats import bert_tf, gpt2_bert4keras, gpt2_ml
from convert.formats.table import Drop, Format, Row

NORMS = ("MultiHeadSelfAttention-Norm", "FeedForward-Norm")


def _numbered(layer: str, *paths: str) -> list[Row]:
    """A layer's weights in Keras's order."""
    return [Row(f"{layer}/{number}", (path,), "turned" if path.endswith("/kernel") else "same") for number, path in enumerate(paths)]


def _dense(layer: str, *paths: str, bias: bool = True) -> list[Row]:
    return _numbered(layer, *(f"{path}/{part}" for path in paths for part in (("kernel", "bias") if bias else ("kernel",))))


def _norm(layer: str, path: str) -> list[Row]:
    return _numbered(layer, f"{path}/bias", f"{path}/scale")


def _rows(layer: str, *, block: str = "block_{layer:02d}", norms: tuple[str, str] = NORMS, bare: bool = False) -> tuple[Row, ...]:
    """layer: what stands before a layer's parts. norms: the names of its two."""
    rows = [row for name in ("Token", "Position", "Segment") for row in _numbered(f"Embedding-{name}", f"embed/{name.lower()}/embedding")]
    rows += _dense("Embedding-Mapping", "embed/map", bias=not bare)
    rows += _dense(f"{layer}-MultiHeadSelfAttention", *(f"{block}/attend/{part}" for part in "qkvo"), bias=not bare)
    rows += _dense(f"{layer}-FeedForward", f"{block}/mlp/up", f"{block}/mlp/down", bias=not bare)
    if bare:
        return tuple(rows)
    rows += _norm("Embedding-Norm", "embed/norm") + _norm("Output-Norm", "norm")
    rows += _norm(f"{layer}-{norms[0]}", f"{block}/norm_0") + _norm(f"{layer}-{norms[1]}", f"{block}/norm_1")
    rows += _dense("Pooler-Dense", "pool/dense") + _dense("NSP-Proba", "nsp/dense")
    rows += _dense("MLM-Dense", "mlm/dense") + _norm("MLM-Norm", "mlm/norm") + _numbered("MLM-Bias", "mlm/bias")
    return tuple(rows + _dense("Discriminator-Dense", "discriminator/dense") + _dense("Discriminator-Prediction", "discriminator/out"))


def _format(of: Format, rows: tuple[Row, ...], *without: str, **more) -> Format:
    """The HDF5 form of a TensorFlow format; rows of our paths that start with one of `without` are left out."""
    rows = tuple(row for row in rows if not row.paths[0].startswith(without or ("-",)))
    title = f"{of.title.split(' (')[0]} (bert4keras in Keras's HDF5)"
    return dataclasses.replace(of, **{"name": f"{of.name}-h5", "title": title, "container": None, "rows": rows, "drops": ()} | more)


ROWS, POSITION, SEGMENT, LAST = _rows("Transformer-{layer}"), "embed/position", "embed/segment", "norm/"
HEADS = ("mlm", "pool", "nsp", "discriminator")
NONE = tuple(f"{head}/" for head in HEADS)
FORMATS = (
    _format(bert_tf.BERT, ROWS, LAST, outputs=HEADS, title="BERT, RoBERTa, ELECTRA (bert4keras in Keras's HDF5)"),
    _format(bert_tf.ALBERT, _rows("Transformer", block="block_00"), LAST),
    _format(bert_tf.NEZHA, ROWS, POSITION, LAST, drops=(Drop("Embedding-Relative-Position/0", "sines as a constant"),)),
    _format(bert_tf.ROFORMER, ROWS, POSITION, LAST),
    _format(bert_tf.ROFORMER_V2, _rows("Transformer-{layer}", bare=True), POSITION),
    _format(bert_tf.GPT, ROWS, "embed/norm", LAST, *NONE),
    _format(gpt2_bert4keras.FORMAT, ROWS, "embed/norm", SEGMENT, *NONE),
    _format(gpt2_ml.FORMAT, _rows("Transformer-{layer}", norms=("FeedForward-Norm-0", "FeedForward-Norm-1")), SEGMENT, LAST, *NONE),
)
