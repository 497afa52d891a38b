"""Shipped fakes: what a test of this project, or of a program built on it, puts in the place of clock, journal and chain.

Every fake keeps the contract of its port in `fabstir.ports`, is reached only by importing it by name, and adds hooks
with which a test cuts, delays or fails it at a chosen point.
"""
