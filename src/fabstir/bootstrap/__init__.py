"""The one composition root: configuration -> shells -> applications. The only room that knows every shell.

Decides nothing but what is connected to what, and refuses to start with the reason where a configured part cannot work.
The command line and the demo call `run_host`, `renter_market` and `devnet`, and nothing below.
"""
