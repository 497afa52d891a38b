"""Inference engines behind the port `fabstir.ports.engine.Engine`.

- `fabstir.engines.llama.LlamaEngine`: llama.cpp's own server in a supervised child process (the default).
- `fabstir.engines.openai.OpenAIEngine`: a server that somebody else runs (llama-server, vLLM), where it reports real token ids.
- `fabstir.engines.model_file`: what a weights file says about itself, and the tiny model that ships with the package.

This package imports nothing: the child process starts through it and must be quick.
"""
