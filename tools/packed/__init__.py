"""Many rows in one sequence: packing, attention, decoding; or padded batches for models that cannot be packed.

Shapes: B rows, T tokens of a row, S tokens of a packed sequence, P tokens of a shared prefix, N scored tokens, H query
heads, K key heads (G = H / K query heads share each), D width of a head, V vocabulary.
"""
