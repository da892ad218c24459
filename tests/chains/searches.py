"""Beam searches written down plainly, over lists and whole recomputations, to compare the compiled ones with."""

import numpy as np


def transformers(predict, limit, beams=4, ends=(), penalty=1.0, early=False, groups=1, diversity=0.0, hit=lambda tokens: False):
    """[(score, tokens)] best first; predict(list of token lists) gives the log-probabilities after each; hit(tokens) ends one too."""
    size = beams // groups
    running, found, over = [[(0.0, [])] for _ in range(groups)], [[] for _ in range(groups)], [False] * groups

    def ended(tokens):
        return tokens[-1] in ends or len(tokens) == limit or hit(tokens)

    for n in range(1, limit + 1):
        crowd = None
        for g in range(groups):
            if over[g]:
                continue
            rows = predict([tokens for _, tokens in running[g]])
            crowd = np.zeros(rows.shape[1]) if crowd is None else crowd
            candidates = [
                (score + row[v] - diversity * crowd[v], [*tokens, v])
                for (score, tokens), row in zip(running[g], rows, strict=True)
                for v in np.flatnonzero(row > -np.inf)
            ]
            pool = sorted(candidates, key=lambda c: -c[0])[: max(2, 1 + len(ends)) * size]
            finished = [c for c in pool[:size] if ended(c[1])]
            found[g] = sorted([*found[g], *((s / n**penalty, t) for s, t in finished)], key=lambda c: -c[0])[:size]
            running[g] = [c for c in pool if not ended(c[1])][:size]
            for _, tokens in running[g]:
                crowd[tokens[-1]] += 1
            full = len(found[g]) == size
            length = limit if early == "never" and penalty > 0 else n
            hopeless = not running[g] or (full and running[g][0][0] / length**penalty <= found[g][-1][0])
            over[g] = hopeless or (early is True and full)
            if over[g]:
                for _, tokens in running[g]:
                    crowd[tokens[-1]] -= 1
        if all(over):
            break
    return sorted([answer for each in found for answer in each], key=lambda c: -c[0])


def bert4keras(predict, maxlen, topk, end, minlen=1, min_ends=1):
    """(score, tokens) of the answer; predict gives log(p + 1e-12)."""
    ids, scores = np.zeros((1, 0), int), np.zeros(1)
    for _ in range(maxlen):
        total = scores[:, None] + predict(ids.tolist())
        flat = np.argsort(-total, axis=None, kind="stable")[:topk]
        ids = np.concatenate([ids[flat // total.shape[1]], flat[:, None] % total.shape[1]], axis=1)
        scores = total.ravel()[flat]
        ended = (ids[:, -1] == end) & ((ids == end).sum(axis=1) >= min_ends)
        if ids.shape[1] >= minlen:
            best = scores.argmax()
            if ended[best]:
                return scores[best], ids[best].tolist()
            ids, scores = ids[~ended], scores[~ended]
            topk = len(ids)
    return scores.max(), ids[scores.argmax()].tolist()


def contrastive(predict, hidden, prompt, limit, ends, candidates, penalty):
    """The tokens drawn; hidden(ids) gives what the head reads after each of the ids, predict the log-probabilities."""
    drawn = []
    while len(drawn) < limit and (not drawn or drawn[-1] not in ends):
        (row,) = predict([drawn])
        rated = []
        for v in np.argsort(-row, kind="stable")[:candidates]:
            if row[v] > -np.inf:
                unit = hidden([*prompt, *drawn, int(v)])
                unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
                rated.append(((1 - penalty) * np.exp(row[v]) - penalty * (unit[:-1] @ unit[-1]).max(), int(v)))
        drawn.append(max(rated, key=lambda r: r[0])[1])
    return drawn
