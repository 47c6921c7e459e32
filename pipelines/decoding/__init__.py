"""How spans of an untrusted video become frames: two decoders, in children that can be ended."""
