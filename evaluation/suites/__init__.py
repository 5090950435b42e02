"""What is asked: fresh problems by the families of k2think-mini, and published benchmarks in the formats they are published in."""
