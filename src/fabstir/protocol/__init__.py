"""The decisions, sans-IO: no await, no clock, no randomness, no sockets. Time and randomness are arguments."""
