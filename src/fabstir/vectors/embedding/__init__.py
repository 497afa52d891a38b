"""Texts to vectors on this machine: all-MiniLM-L6-v2 through onnxruntime, from weights whose hash is known."""
