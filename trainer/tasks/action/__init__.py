"""Action recognition, as in UCF101 and HMDB51: one class per video, three splits."""
