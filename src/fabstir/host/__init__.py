"""The host's application: admission, jobs, sessions at work, health. Shells around `fabstir.protocol`; decides nothing
about money."""
