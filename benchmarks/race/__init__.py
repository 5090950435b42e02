"""The race: k2think against a bare script that makes the same model calls without any durability."""
