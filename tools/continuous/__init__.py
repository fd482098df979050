"""Continuous batching: rows that come and go, answered together a step at a time.

Shapes as in `tools.packed`: B rows, T tokens, S tokens of a pass, P tokens of a shared prefix, N scored tokens, H query
heads, K key heads, D width of a head, V vocabulary.
"""
