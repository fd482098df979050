"""What a CUDA card makes of training and answering: `python -m bench.cost.gpu`."""
