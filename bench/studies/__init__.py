"""Studies behind a threshold or a claim: the gate's false keeps, the classifier's calibration, its probes."""
