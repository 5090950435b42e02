"""The evidence: what each pillar brings on k2think-mini, measured by the runs that are declared here and printed from them."""
