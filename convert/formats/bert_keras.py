"""BERT and its kin as bert4keras's models give them to Keras's HDF5 files: a layer's weights by their number. Read, not written."""

import dataclasses

from convert.formats import bert_tf
from convert.formats.table import Drop, Format, Row


def _numbered(layer: str, *paths: str) -> list[Row]:
    """A layer's weights in Keras's order."""
    return [Row(f"{layer}/{number}", (path,), "turned" if path.endswith("/kernel") else "same") for number, path in enumerate(paths)]


def _dense(layer: str, *paths: str, bias: bool = True) -> list[Row]:
    return _numbered(layer, *(f"{path}/{part}" for path in paths for part in (("kernel", "bias") if bias else ("kernel",))))


def _norm(layer: str, path: str) -> list[Row]:
    return _numbered(layer, f"{path}/bias", f"{path}/scale")


def _rows(layer: str, *, block: str = "block_{layer:02d}", bare: bool = False) -> tuple[Row, ...]:
    """layer: what stands before a layer's parts."""
    rows = [row for name in ("Token", "Position", "Segment") for row in _numbered(f"Embedding-{name}", f"embed/{name.lower()}/embedding")]
    rows += _dense("Embedding-Mapping", "embed/map", bias=not bare)
    rows += _dense(f"{layer}-MultiHeadSelfAttention", *(f"{block}/attend/{part}" for part in "qkvo"), bias=not bare)
    rows += _dense(f"{layer}-FeedForward", f"{block}/mlp/up", f"{block}/mlp/down", bias=not bare)
    if bare:
        return tuple(rows)
    rows += _norm("Embedding-Norm", "embed/norm") + _norm(f"{layer}-MultiHeadSelfAttention-Norm", f"{block}/norm_0")
    rows += _norm(f"{layer}-FeedForward-Norm", f"{block}/norm_1")
    rows += _dense("Pooler-Dense", "pool/dense") + _dense("NSP-Proba", "nsp/dense")
    rows += _dense("MLM-Dense", "mlm/dense") + _norm("MLM-Norm", "mlm/norm") + _numbered("MLM-Bias", "mlm/bias")
    return tuple(rows + _dense("Discriminator-Dense", "discriminator/dense") + _dense("Discriminator-Prediction", "discriminator/out"))


def _format(of: Format, rows: tuple[Row, ...], *without: str, **more) -> Format:
    """The HDF5 form of a TensorFlow format; rows of our paths that start with one of `without` are left out."""
    rows = tuple(row for row in rows if not row.paths[0].startswith(without or ("-",)))
    title = f"{of.title.split(' (')[0]} (bert4keras in Keras's HDF5)"
    return dataclasses.replace(of, **{"name": f"{of.name}-h5", "title": title, "container": None, "rows": rows, "drops": ()} | more)


ROWS, POSITION = _rows("Transformer-{layer}"), "embed/position"
HEADS = ("mlm", "pool", "nsp", "discriminator")
FORMATS = (
    _format(bert_tf.BERT, ROWS, outputs=HEADS, title="BERT, RoBERTa, ELECTRA (bert4keras in Keras's HDF5)"),
    _format(bert_tf.ALBERT, _rows("Transformer", block="block_00")),
    _format(bert_tf.NEZHA, ROWS, POSITION, drops=(Drop("Embedding-Relative-Position/0", "sines as a constant"),)),
    _format(bert_tf.ROFORMER, ROWS, POSITION),
    _format(bert_tf.ROFORMER_V2, _rows("Transformer-{layer}", bare=True), POSITION),
    _format(bert_tf.GPT, ROWS, "embed/norm", *(f"{head}/" for head in HEADS)),
)
