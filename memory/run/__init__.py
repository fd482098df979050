"""One run on disk: its folder, ledger, charges, and what runs of one task share."""
