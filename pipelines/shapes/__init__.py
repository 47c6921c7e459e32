"""*Shapes*: a corpus of small captioned videos that anyone can render, with its ground truth."""
