"""Evaluation: scores of a generator, or of samples, under one protocol.

`Evaluator` scores networks' parameters or arrays against a dataset; `Scorer`
writes what it says to `metrics.jsonl`, with the whole protocol, and scores
nothing twice.
"""
