"""Many rows in one sequence: packing, attention, decoding; or padded batches where a model cannot."""
