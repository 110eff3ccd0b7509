"""Makes the bundled model: text generator, training, measurement. See README.md in this folder."""
