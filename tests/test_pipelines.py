"""Writer: texts in, texts out; seeds, batches, streams, scores and their errors, on the bundled model and on a tiny one."""

import jax
import numpy as np
import pytest

import flaxgen
from flaxgen.models import config as sizes
from flaxgen.models import gated, gated_config, t5, t5_config
from flaxgen.text import bytepair, wordpiece

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"天地玄黄宇宙洪荒日月盈，。", "sun", "##ny", "day")


def tiny(text, vocab):
    model = flaxgen.Transformer(sizes.Config(vocab, 64, 12, 2, 3, 20, "between", "gelu", init_range=0.5))
    return flaxgen.Writer(model, jax.jit(model.init)(jax.random.key(0), np.zeros((1, 2), int)), text)


@pytest.fixture(scope="module")
def writer():
    return tiny(wordpiece.WordPiece(WORDS, end=(3,)), len(WORDS) + 2)


@pytest.fixture(scope="module")
def poet():
    return flaxgen.Writer()


def test_the_bundled_model_writes_lines_that_scan(poet):
    texts = poet("床前明月光", samples=4, tokens=60, seed=1)
    assert len(texts) == 4 and len(set(texts)) == 4
    lines = [line for text in texts for line in ("床前明月光" + text).replace("。", "，").replace("\n", "，").split("，") if line]
    assert sum(len(line) in (5, 7) for line in lines) > len(lines) / 2


def test_the_same_seed_gives_the_same_text_and_another_seed_another(poet):
    assert poet("今天天气不错", tokens=12, seed=4) == poet("今天天气不错", tokens=12, seed=4)
    assert poet("今天天气不错", tokens=12, seed=4) != poet("今天天气不错", tokens=12, seed=5)


def test_a_stream_is_the_text_piece_by_piece(writer):
    for seed in range(5):
        pieces = list(writer.stream("天地玄黄 sunny", tokens=20, seed=seed))
        assert "".join(pieces) == writer("天地玄黄 sunny", tokens=20, seed=seed)[0]


def test_a_list_of_prompts_gives_each_what_it_gets_alone(writer):
    prompts = ["天地玄黄", "宇宙", "日月盈昃"]
    together = writer(prompts, samples=2, tokens=9, seed=[7, 8, 7])
    assert together == [writer(prompt, samples=2, tokens=9, seed=seed) for prompt, seed in zip(prompts, [7, 8, 7], strict=True)]


def test_control_tokens_and_reserved_rows_are_never_drawn(writer):
    written = writer.write(["天地"], samples=8, tokens=50, rule=flaxgen.Rule(temperature=3.0))[0]
    drawn = {token for one in written for token in one.tokens[:-1]}
    assert drawn.isdisjoint({0, 1, 2, 3, 4, len(WORDS), len(WORDS) + 1})
    assert all(token == 3 for one in written for token in one.tokens[-1:] if len(one.tokens) < 50)
    assert all("[" not in one.text for one in written)


def test_new_requests_compile_nothing_after_warming_up(writer):
    writer.warm(lengths=(16, 29), tokens=(30,), samples=2)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    noise = np.random.default_rng(0)
    try:
        for seed in range(50):
            prompt = "".join(noise.choice(list("天地玄黄宇宙洪荒日月盈"), noise.integers(1, 30)))
            rule = flaxgen.Rule(temperature=noise.uniform(0, 2), top_k=int(noise.integers(9)), top_p=noise.uniform())
            writer(prompt, samples=2, tokens=int(noise.integers(1, 30)), rule=rule, seed=seed)
    finally:
        jax.monitoring.clear_event_listeners()
    assert [name for name in compiled if name.endswith("backend_compile_duration")] == []


def test_scores_are_the_log_probabilities_of_what_was_drawn(writer):
    (one,) = writer.write(["天地玄黄"], tokens=12, rule=flaxgen.Rule(), seed=3)[0]
    text = "天地玄黄" + one.text
    score = writer.score(text)
    if writer.text.encode(text) == writer.text.encode("天地玄黄") + one.tokens:
        np.testing.assert_allclose(score.log_probs[3:], one.log_probs, atol=1e-5)
    assert score.total == pytest.approx(sum(score.log_probs))
    assert score.perplexity == pytest.approx(np.exp(-np.mean(score.log_probs)))
    assert [s.total for s in writer.score([text, "日月"])] == pytest.approx([score.total, writer.score("日月").total], abs=1e-4)


def test_many_texts_are_scored_as_each_alone(writer):
    texts = ["天地玄黄宇宙"[: 2 + i % 5] for i in range(19)]
    assert [s.total for s in writer.score(texts)] == pytest.approx([writer.score(text).total for text in texts], abs=1e-4)


def test_the_bundled_model_prefers_verse_to_the_same_words_shuffled(poet):
    verse, shuffled = poet.score(["春风不度玉门关，明月何时照我还。", "关玉不春门度风，我照时月何明还。"])
    assert verse.perplexity < shuffled.perplexity


def test_byte_pairs_write_whole_characters_only():
    text = bytepair.BytePair((*bytepair.alphabet(), "<|endoftext|>"), (), end=(256,))
    writer = tiny(text, len(text))
    for seed in range(3):
        streamed = list(writer.stream("héllo 天", tokens=25, seed=seed))
        assert "".join(streamed) == writer("héllo 天", tokens=25, seed=seed)[0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: w(""), "empty"),
        (lambda w: w("天" * 60, tokens=9), "60 ids and 9 new tokens make 69"),
        (lambda w: w("天", tokens=0), "tokens=0"),
        (lambda w: w("天", tokens=2.0), "tokens=2.0"),
        (lambda w: w("天", samples=0), "samples=0"),
        (lambda w: w("天", seed=-1), "seed=-1"),
        (lambda w: w(["天", "地"], seed=[1]), "each of the 2 prompts"),
        (lambda w: w("天", rule=flaxgen.Rule(top_p=3)), "top_p=3"),
        (lambda w: w([]), "none"),
        (lambda w: w.stream("天", tokens=0), "tokens=0"),
        (lambda w: w("天", rule={"top_p": 0.9}), "wanted a flaxgen.Rule"),
        (lambda w: w.score("天" * 70), "cut it"),
        (lambda w: w.score("天"), "at least 2"),
        (lambda w: w.score([]), "none"),
    ],
)
def test_a_request_that_cannot_be_met_says_why(writer, call, words):
    with pytest.raises(ValueError, match=words):
        call(writer)


def test_a_model_without_a_vocabulary_says_how_to_get_one(writer):
    with pytest.raises(flaxgen.CheckpointError, match="--vocab"):
        flaxgen.Writer(writer.model, writer.params, None)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (gated.Gated(gated_config.Config(9)), r"a Gated does not continue texts.*flaxgen\.Couplets"),
        (t5.T5(t5_config.Config(9, 6, 1, 1, 6, 8, "relu", "tied")), r"a T5 does not continue texts.*flaxgen\.chains\.seq2seq"),
    ],
)
def test_a_model_that_does_not_write_is_refused_with_what_runs_it(model, words):
    with pytest.raises(flaxgen.CheckpointError, match=words):
        flaxgen.Writer(model, {}, wordpiece.WordPiece(WORDS))


def test_deep_models_are_dispatched_layer_by_layer_on_a_cpu():
    model = flaxgen.Transformer(sizes.Config(len(WORDS), 20, 4, 25, 2, 8, "between", "gelu"))
    deep = flaxgen.Writer(model, jax.jit(model.init)(jax.random.key(0), np.zeros((1, 2), int)), wordpiece.WordPiece(WORDS))
    assert deep.setup.layers == "dispatched"
    assert len(deep("天地", samples=2, tokens=5)) == 2
    assert np.isfinite(deep.score("天地玄黄").total)
