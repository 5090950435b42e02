"""The HTTP doors: OpenAI-compatible, native, and the trace page. On `store` and the submit path only."""
