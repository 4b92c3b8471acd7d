"""A pretrained causal language model inside a policy: its files, its instructions, its adapters."""
