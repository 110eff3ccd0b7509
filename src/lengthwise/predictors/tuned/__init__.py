"""The served model, tuned to say lengths: LoRA and the [LEN] token."""
