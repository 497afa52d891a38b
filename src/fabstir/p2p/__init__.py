"""libp2p in a process of its own: `network` is what the node sees of it, `worker` is the process, `hardening` what stands between it and
strangers. Only modules that the worker imports know libp2p and trio."""
