"""From what a served model was asked and answered to rows: read, judged, redacted, and none twice."""
