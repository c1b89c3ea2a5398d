"""Banded inference: a tile is computed in bands of rows, and each layer keeps the rows that its next outputs need.

Nothing is computed twice and nothing is approximated. Memory is that of a band and the kept rows, so it grows with the
width of a tile and not with its height.
"""
