"""The reader as bert4keras's examples have it, and BERT with it, in plain numpy, float64 and whole recomputations."""

import itertools
import math
import re

import numpy as np
import searches

_erf = np.vectorize(math.erf)


def bert(tree, heads, token_T, rank_T, segment_T):
    """logit_TV of one row; tree: flaxgen's paths -> arrays. A token sees those whose rank is no higher than its own."""
    tree = {name: np.asarray(leaf, np.float64) for name, leaf in tree.items()}

    def norm(x_TD, path):
        x_TD = x_TD - x_TD.mean(-1, keepdims=True)
        return x_TD / np.sqrt((x_TD**2).mean(-1, keepdims=True) + 1e-12) * tree[f"{path}/scale"] + tree[f"{path}/bias"]

    def dense(x_TD, path):
        return x_TD @ tree[f"{path}/kernel"].T + tree[f"{path}/bias"]

    def gelu(x):
        return x * 0.5 * (1 + _erf(x / math.sqrt(2)))

    steps = len(token_T)
    rank_T, segment_T = np.asarray(rank_T), np.asarray(segment_T)
    x_TD = tree["embed/token/embedding"][token_T] + tree["embed/segment/embedding"][segment_T] + tree["embed/position/embedding"][:steps]
    x_TD = norm(x_TD, "embed/norm")
    for layer in itertools.takewhile(lambda n: f"block_{n:02d}/norm_0/scale" in tree, itertools.count()):
        block = f"block_{layer:02d}"
        q, k, v = (dense(x_TD, f"{block}/attend/{name}").reshape(steps, heads, -1).swapaxes(0, 1) for name in "qkv")
        score_HTS = np.where(rank_T[None, :, None] >= rank_T[None, None, :], q @ k.swapaxes(1, 2) / math.sqrt(q.shape[2]), -np.inf)
        weight_HTS = np.exp(score_HTS - score_HTS.max(-1, keepdims=True))
        weight_HTS /= weight_HTS.sum(-1, keepdims=True)
        mixed_TD = (weight_HTS @ v).swapaxes(0, 1).reshape(steps, -1)
        x_TD = norm(x_TD + dense(mixed_TD, f"{block}/attend/o"), f"{block}/norm_0")
        x_TD = norm(x_TD + dense(gelu(dense(x_TD, f"{block}/mlp/up")), f"{block}/mlp/down"), f"{block}/norm_1")
    x_TD = norm(gelu(dense(x_TD, "mlm/dense")), "mlm/norm")
    return x_TD @ tree["embed/token/embedding"].T + tree["mlm/bias"]


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def unilm(tree, heads):
    """predict(prefix, answer) -> p_V of the token that follows."""

    def predict(prefix, answer):
        segment_T = np.array([0] * len(prefix) + [1] * len(answer))
        return softmax(bert(tree, heads, [*prefix, *answer], np.cumsum(segment_T), segment_T)[-1])

    return predict


def normalised(passage):
    return re.sub(" |、|；|，", ",", passage)


def cut(ids, width):
    """[CLS] ids [SEP], at most `width` tokens."""
    return [2, *ids[: width - 2], 3]


def prefixes(encode, question, passages, max_p, max_q):
    """(passage with its marks, question with its last one) of each passage."""
    question = cut(encode(question), max_q + 1)[1:]
    return [(cut(encode(normalised(passage)), max_p), question) for passage in passages]


def followers(rows, ids):
    """The tokens that follow `ids` somewhere in one of the rows."""
    n = len(ids)
    return {row[i + n] for row in rows for i in range(len(row) - n) if list(row[i : i + n]) == list(ids)}


def vote(p_PV):
    return (p_PV**2).sum(0) / (p_PV.sum(0) + 1)


def seek(predict, rows, mode, topk, max_a, end=3):
    """(score, tokens, passages that were not dismissed); rows: as `prefixes` gives them, end: the id of [SEP]."""
    first_PV = np.stack([predict([*passage, *question], []) for passage, question in rows])
    left = [n for n, p_V in enumerate(first_PV) if p_V.argmax() != end]

    def scores(answers):
        found = []
        for answer in answers:
            if not left:
                found.append(np.eye(first_PV.shape[1])[end])
                continue
            p_PV = np.stack([predict([*rows[n][0], *rows[n][1]], answer) for n in left])
            if mode == "extractive":
                allowed = followers([rows[n][0][1:-1] for n in left], answer) | {end}
                p_PV[:, [v for v in range(p_PV.shape[1]) if v not in allowed]] = 0
            found.append(vote(p_PV))
        return np.log(np.stack(found) + 1e-12)

    score, tokens = searches.bert4keras(scores, max_a, topk, end)
    return score, tokens, left


def at_once(tree, heads, rows, max_a, mask, end=3):
    """[(tokens, score)] of each passage by the example that fills in all places at once; the first token of a passage is its [CLS]."""
    found = []
    for passage, question in rows:
        ids = [passage[0], *[mask] * max_a, end, *question, *passage[1:]]
        p_NV = softmax(bert(tree, heads, ids, [1] * len(ids), [0] * len(ids))[1 : max_a + 1])
        answer, total = [], 0.0
        for p_V in p_NV:
            allowed = sorted(followers([passage[1:]], answer) | {end})
            answer.append(allowed[p_V[allowed].argmax()])
            total += p_V[allowed].max()
            if answer[-1] == end:
                break
        found.append((answer, total / len(answer)))
    return found
