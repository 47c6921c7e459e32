"""Action recognition, as UCF101 and HMDB51 have it: one class a video, three splits."""
