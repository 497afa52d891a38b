"""A whole market on one machine, from nothing to paid: what `fabstir demo` plays.

Real parts only; the hosts are processes that can be killed.
"""
