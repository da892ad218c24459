"""Tables of foreign names: one file, one format. FORMATS holds them all by the name that --model and --to take."""

from convert.formats import flaxgen, gpt2_bert4keras, gpt2_hf, gpt2_ml, gpt2_tf
from convert.formats.table import Format

FORMATS: dict[str, Format] = {
    each.name: each for each in (flaxgen.FORMAT, gpt2_ml.FORMAT, gpt2_tf.FORMAT, gpt2_hf.FORMAT, gpt2_bert4keras.FORMAT)
}
