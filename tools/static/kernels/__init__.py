"""Fewer and larger kernels for attention, norms, positions and products that architectures write out as many."""
