"""What collections, points and filters are, how they are logged, and when segments are rebuilt. Pure: no files, threads or time."""
