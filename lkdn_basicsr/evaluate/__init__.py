"""Measuring networks against each other on test sets, and showing it: what ``compare`` and ``study`` are made of."""
