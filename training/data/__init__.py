"""Training data: published sets and our own log into typed records, checked, without doubles and without evaluation problems."""
