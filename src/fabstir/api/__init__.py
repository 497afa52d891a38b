"""HTTP and WebSocket in front of the applications. Translates; decides nothing about jobs, tokens or money."""
