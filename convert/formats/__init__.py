"""Tables of foreign names, a family to a file. FORMATS holds them all by the name that --model and --to take."""

from convert.formats import bert_hf, bert_keras, bert_tf, flaxgen, gpt2_bert4keras, gpt2_hf, gpt2_ml, gpt2_tf, t5, t5_hf
from convert.formats.table import Format

GPT2 = (gpt2_ml.FORMAT, gpt2_tf.FORMAT, gpt2_hf.FORMAT, gpt2_bert4keras.FORMAT)
T5 = (t5.V1_0, t5.V1_1, t5.MULTILINGUAL, t5_hf.V1_0, t5_hf.V1_1)
ENCODERS = (*bert_tf.FORMATS, *bert_hf.FORMATS, *bert_keras.FORMATS)
FORMATS: dict[str, Format] = {each.name: each for each in (flaxgen.FORMAT, *GPT2, *ENCODERS, *T5)}
