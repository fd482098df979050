"""What is measured side by side: our training and answering, and what people would otherwise run."""
