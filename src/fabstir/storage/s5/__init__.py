"""S5-compatible storage of the renter's own: blobs by content, signed pointers, encrypted directories, and the backends beneath."""
