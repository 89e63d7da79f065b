"""Finds personal data and secrets in requests and answers, and puts placeholders for them and values for these."""
