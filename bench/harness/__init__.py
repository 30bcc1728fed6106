"""The common part of the benchmarks: undisturbed runs, conditions, targets with a verdict, and the document."""
