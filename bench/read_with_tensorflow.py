"""Reads bundles that `python -m convert` wrote with TensorFlow's own reader and compares them bit by bit with the originals.

    TENSORFLOW_PYTHON bench/read_with_tensorflow.py ORIGINAL_PREFIX OURS_PREFIX [ORIGINAL_PREFIX OURS_PREFIX ...]

Runs in an environment of its own with TensorFlow 1.15 or 2.x (plain Python 3.6 syntax); exit code 1 when anything differs.
"""

import sys

import numpy as np
import tensorflow as tf


def compare(original, ours):
    """How many variables of `ours` TensorFlow reads, and which differ from `original` in shape, type or a bit."""
    wanted, found = tf.train.load_checkpoint(original), tf.train.load_checkpoint(ours)
    names = sorted(found.get_variable_to_shape_map())
    differing = []
    for name in names:
        one, other = np.asarray(wanted.get_tensor(name)), np.asarray(found.get_tensor(name))
        if one.shape != other.shape or one.dtype != other.dtype or one.tobytes() != other.tobytes():
            differing.append(name)
    return len(names), differing


def main():
    pairs = list(zip(sys.argv[1::2], sys.argv[2::2]))  # noqa: B905
    bad = not pairs
    for original, ours in pairs:
        count, differing = compare(original, ours)
        bad = bad or bool(differing) or not count
        line = "TensorFlow {}: {} variables of {} read, {} differ {}"
        print(line.format(tf.__version__, count, ours, len(differing), differing[:3]))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
