"""Writes minilm.npz: `python make_minilm.py FOLDER`, with the folder of all-MiniLM-L6-v2.

It has the ids of two captions and their last hidden states by that version of transformers.
"""

import pathlib
import sys

import numpy as np
import torch
import transformers

CAPTIONS = ("a red ring rises behind the café", "Someone isn't juggling 3 oranges!")

if __name__ == "__main__":
    tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
    model = transformers.AutoModel.from_pretrained(sys.argv[1]).eval()
    given = tokenizer(list(CAPTIONS), padding="max_length", max_length=14, return_tensors="pt")
    with torch.no_grad():
        states = model(**given).last_hidden_state.numpy()
    np.savez_compressed(
        pathlib.Path(__file__).with_name("minilm.npz"),
        captions=np.array(CAPTIONS),
        ids=given["input_ids"].numpy(),
        mask=given["attention_mask"].numpy() > 0,
        states=states,
        version=np.array(transformers.__version__),
    )
