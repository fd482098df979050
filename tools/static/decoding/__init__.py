"""Greedy decoding in static steps: batches, the decoder, and the weights that it reads."""
