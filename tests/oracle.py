"""The rule set in plain numpy and Python loops, float64, for one row: what the device is compared with.

`margin` is how far the nearest decision was from going the other way; cases nearer than rounding are no cases.
"""

import itertools
import math

import numpy as np

from flaxgen import rules


def penalised(logit_V: np.ndarray, prompt: list[int], answer: list[int], rule: rules.Rule) -> np.ndarray:
    """Logits after bias, penalties, n-grams and banned tokens and sequences; end tokens and constraints are not looked at."""
    so_far, logit_V = prompt + answer, logit_V.astype(np.float64).copy()
    for token, value in rule.logit_bias.items():
        logit_V[token] += value
    for token in set(so_far):
        logit_V[token] = logit_V[token] / rule.repetition_penalty if logit_V[token] > 0 else logit_V[token] * rule.repetition_penalty
    for token in answer:
        logit_V[token] -= rule.frequency_penalty
    for token in set(answer):
        logit_V[token] -= rule.presence_penalty
    if rule.no_repeat_ngram:
        stem = so_far[len(so_far) - rule.no_repeat_ngram + 1 :] if rule.no_repeat_ngram <= len(so_far) else None
        for i in range(len(so_far) - rule.no_repeat_ngram + 1):
            if so_far[i : i + rule.no_repeat_ngram - 1] == stem:
                logit_V[so_far[i + rule.no_repeat_ngram - 1]] = -np.inf
    for entry in rule.ban:
        *stem, last = np.atleast_1d(entry).tolist()
        if so_far[len(so_far) - len(stem) :] == stem:
            logit_V[last] = -np.inf
    return logit_V


def kept(logit_V: np.ndarray, rule: rules.Rule) -> tuple[set[int], float]:
    """(ids, margin): what temperature and filters keep of logits that are not all -inf; temperature 0 keeps one."""
    logit_V = logit_V.astype(np.float64)
    order = [int(i) for i in np.argsort(-logit_V, kind="stable") if logit_V[i] > -np.inf]
    if rule.temperature == 0:
        return {order[0]}, logit_V[order[0]] - logit_V[order[1]] if len(order) > 1 else 1.0
    share = {i: math.exp((logit_V[i] - logit_V[order[0]]) / max(rule.temperature, 1e-4)) for i in order}
    margins = [1.0]
    if rule.top_k:
        order = order[: rule.top_k]
    for p, whole in ((rule.top_p, True), (rule.top_p_below, False)):
        if p < 1:
            order, margin = _prefix(order, share, p, whole)
            margins.append(margin)
    margins += [abs(share[i] / share[order[0]] - rule.min_p) / rule.min_p for i in order if rule.min_p]
    order = [i for i in order if share[i] >= rule.min_p * share[order[0]]]
    if rule.typical_p < 1:
        total = sum(share[i] for i in order)
        surprise = {i: -math.log(share[i] / total) if share[i] else math.inf for i in order}
        entropy = sum(share[i] / total * surprise[i] for i in order if share[i])
        far = {i: abs(surprise[i] - entropy) for i in order}
        order = sorted(order, key=far.__getitem__)
        whole = order
        order, margin = _prefix(order, share, rule.typical_p, True)
        near = [abs(far[a] - far[b]) for a, b in itertools.pairwise(whole)]
        margins += [margin, *near[max(len(order) - 2, 0) : len(order)]]
    return set(order), min(margins)


def _prefix(order: list[int], share: dict[int, float], p: float, whole: bool) -> tuple[list[int], float]:
    """The first tokens up to the one that crosses p (`whole`: with it), at least one, and the margin."""
    reached = np.cumsum([share[i] for i in order])
    reached /= reached[-1]
    count = int(np.searchsorted(reached, p, side="left"))
    return order[: max(count + whole, 1)], float(np.abs(reached - p).min())


def probabilities(logit_V: np.ndarray, rule: rules.Rule) -> np.ndarray:
    """What a draw by the rule follows: the softmax over the kept tokens."""
    ids = sorted(kept(logit_V, rule)[0])
    share_V = np.zeros(len(logit_V))
    share_V[ids] = np.exp((logit_V[ids] - logit_V[ids].max()) / max(rule.temperature, 1e-4))
    return share_V / share_V.sum()
