"""What nodes say to each other over libp2p, and what of it is believed. Decides and does no input or output."""
