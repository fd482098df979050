"""What stands around the model: start-up, graph, checkpoints, ledger, report, prompt memory."""
