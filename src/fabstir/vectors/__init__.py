"""Collections of vectors on this machine: logged, segmented, rebuilt in the background, copied to the renter's drive; embeddings."""
