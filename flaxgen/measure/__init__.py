"""Scores of what models write: numpy in, numbers out."""
