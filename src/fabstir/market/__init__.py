"""Which hosts there are and which one to take: the registry and each host's offer, brought together and ranked."""
