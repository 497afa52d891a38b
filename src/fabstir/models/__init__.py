"""What a weights file holds, for the registry and for proofs: who the model is, and the rows of its output head.

Reads files, never runs a model; that is `fabstir.engines`.
"""
