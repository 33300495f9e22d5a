"""Ablations: many cells and seeds, trained as few programs, and compared."""
