"""What an engine is given of a conversation: history, window, the plan that is disclosed, and what a host holds in memory. Pure."""
