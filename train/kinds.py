"""What a run must know of its kind of task: one module for each, and the same program around all of them.

A module of a kind holds

    UNIT                              the plural of what is counted and weighed, as "tokens"
    SHARDING                          (pattern, PartitionSpec) pairs of the model's parameters
    CARRY                             the same of what the task carries from update to update; () where it carries nothing
    Config                            the class of its models' sizes
    limits(config)                    what a mesh must divide besides, a tuple of flaxgen.sharding.Limit
    begin(settings) -> begin.Model    the model of the first update; what is wrong with the settings is a ValueError
    task(settings, config)            the protocols.Task of these settings, all its wrappers around it
    given(settings, model)            model.params (by layer, on the host) as the task trains them; None where model.params is None
    freeze(settings, model)           (the regex of what is not trained, the dtype it is kept in)
    rows(run, name, words, known)     the data that `words` (data= or dev=) name; known: the digest that it must have, or None.
                                      It has digest, len(), weight() (targets in an epoch) and batch(seed, place, size, rows): arrays that
                                      begin with the rows, a pure function of its arguments, `rows` a slice of the batch
    look(run, rows, dev)              look(step, state) -> (facts for the log, the score of a checkpoint or None, less is better); what is
                                      wrong with prompts= is a ValueError before the first update. dev: what rows() gave for it, or None
    cost(settings, config, fixed)     (floating-point operations a target, the formula in words); fixed: elements of frozen kernels
    saved(settings, model)            what weights.save is told of a model besides, as {"end": ids, "rule": fields} or {"sampling": fields}
"""

import importlib
from types import ModuleType

from train import settings as choices

MODULES = {
    "language": "train.language",
    "tagging": "train.tagging",
    "reading": "train.reading",
    "energy": "train.energy",
    "flow": "train.flow",
    "classifier": "train.classifier",
}


def of(settings: choices.Settings) -> ModuleType:
    """The module that knows these settings' kind of task."""
    return importlib.import_module(MODULES[settings.kind])
