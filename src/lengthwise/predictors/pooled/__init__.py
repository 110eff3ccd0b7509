"""The served model's hidden states, pooled: mean, last, entropy-weighted."""
