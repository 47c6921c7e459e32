"""A snapshot in, batches for the device out: read, decode, tokenise, batch."""
