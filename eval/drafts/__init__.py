"""From a file of rows to a drafted task: columns, splits, scorers and target, proposed by looking at the rows."""
