"""Fine-tuning a text encoder on lengths: what is learned, the network, the loop, the export."""
