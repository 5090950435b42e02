"""What a cluster trains with, written from the same configurations: verl for RL, LLaMA-Factory for SFT."""
