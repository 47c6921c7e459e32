"""Schema version 1: generated from clip.proto and manifest.proto by `make protos`."""
