"""Metrics: what a worker counts, in files that outlive it, and what the admin application makes of them all."""
