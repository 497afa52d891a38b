"""What stored things are called, how they are encoded, sealed and arranged. Pure: shells bring bytes, randomness and time."""
