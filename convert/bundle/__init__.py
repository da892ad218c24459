"""TensorFlow's checkpoint format without TensorFlow: an index (a sorted table of protobuf entries) and data shards.

read.index gives name -> entry, read.chunks one tensor, write.write makes a bundle that TensorFlow 1.15 and 2.x read.
"""
