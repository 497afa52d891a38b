"""The one log that remembers: the journal and the transaction outbox in one SQLite file."""
