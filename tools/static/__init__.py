"""Passes of fixed sizes, which CUDA captures once and replays: decoding steps and training passes."""
