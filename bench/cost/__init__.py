"""What it costs, beside what people would otherwise run."""
