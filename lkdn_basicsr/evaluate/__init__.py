"""Measure networks on benchmarks; ``evaluate.loading`` opens them."""
