"""Writes one version's folder of this data: `python make.py`, where that transformers is installed.

transformers and PyTorch are no part of the project's environment: make one for each version, with
`pip install transformers==VERSION torch torchvision pillow`, and run this file with its Python.
All weights are random, from seed 0; no bias is zero, so that a dropped one shows.
"""

import json
import pathlib
import shutil

import numpy as np
import torch
import transformers

OUT = pathlib.Path(__file__).parent / transformers.__version__
SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    # Left at its default, a norm would hide states of 0.001, and we would compare noise.
    "layer_norm_eps": 1e-6,
}
BERT = {"vocab_size": 20, "max_position_embeddings": 10} | SMALL
BERTS = (
    *("BertModel", "BertForPreTraining", "BertForMaskedLM", "BertForNextSentencePrediction"),
    *("BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering"),
    "BertForMultipleChoice",
)
VIDEO = {"image_size": 16, "num_frames": 4} | SMALL
VIVIT = {"tubelet_size": [2, 8, 8]} | VIDEO
VIVITS = ("VivitModel", "VivitForVideoClassification")
DECODER = {
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 8,
}
VIDEOMAE = {"tubelet_size": 2, "patch_size": 8} | VIDEO | DECODER
VIDEOMAES = ("VideoMAEModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification")

CAPTIONS = (
    "The Cat sat.",
    "the cat sat",
    "THE CAT SAT!",
    "Café au lait, s'il vous plaît",
    "Cafe\u0301 with a combining accent",
    "naïve façade — über Ångström",
    "İstanbul ıŞık ẞ Straße",
    "ΑΣ ΌΣΟΣ σοφός",
    "Привет, Ёлка",
    "猫が座る cat猫cat",
    "한국어 고양이",
    "हिन्दी में",
    "emoji 🐈 and 👩‍👩‍👧 and ❤️",
    "tab\tnew\nline\r\nand\x0bmore",
    "nul\x00 bell\x07 escape\x1b delete\x7f",
    "zero\u200bwidth soft\u00adhyphen bom\ufeff",
    "no\u00a0break thin\u2009space ideographic\u3000space",
    "line\u2028separator para\u2029graph",
    "replacement \ufffd private \ue000",
    "punct: a-b_c/d\\e~f`g^h$i+j=k<l>m|n",
    "“curly” ‘quotes’ … – — « »",
    "12,345.67 3rd ½ ² ①",
    "ﬁne ligature ＦＵＬＬ width",
    "x" * 100,
    "x" * 101,
    "",
    " ",
    "a",
    "Ω Å K",
    "e\u0301\u0302\u0303 stacked",
    "عربي مَرْحَبًا",
    "עִבְרִית",
    "ไทย ภาษา",
    "Tiếng Việt",
    "a\u0300b",
    "𝕋𝕙𝕖 mathematical",
    "sat<cat>sat <CAT> < cat >",
    "newword newwords NewWord Newword anewword",
    "alone aloneness alone. Alone",
    "Exact exact EXACT Éxact",
    "left  <l>  right  <r>  end",
    "<ent> <ENT>",
)
WORDS = ("The", "the", "Cat", "cat", "sat", "SAT", "Café", "cafe", "##word", "new", "##ness")
# From 5.0 on the two are one.
KINDS = ("BertTokenizer", "BertTokenizerFast")[: 1 if transformers.__version__ >= "5" else 2]
TOKENISERS = {
    "cased": {"do_lower_case": False},
    "uncased": {"do_lower_case": True},
    "lower-with-accents": {"do_lower_case": True, "strip_accents": False},
    "cased-without-accents": {"do_lower_case": False, "strip_accents": True},
    "whole-chinese": {"do_lower_case": False, "tokenize_chinese_chars": False},
    "added": {"do_lower_case": True},
}


def models():
    answers = {}
    rng = np.random.default_rng(0)
    answers["pixels"] = rng.normal(size=(2, 4, 3, 16, 16)).astype(np.float32)
    answers["input_ids"] = rng.integers(0, 20, (2, 10))
    answers["attention_mask"] = np.arange(10) < np.array([[10], [6]])
    given = {name: torch.from_numpy(value) for name, value in answers.items()}
    for name in BERTS:
        base = made(name, transformers.BertConfig(**BERT), "bert", name)
        text = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"].long()}
        answers[name] = base(**text).last_hidden_state
    for biased in (True, False):
        suffix = "" if biased else "-without-bias"
        for name in VIVITS[: 2 if biased else 1]:
            config = transformers.VivitConfig(qkv_bias=biased, **VIVIT)
            base = made(name, config, "vivit", name + suffix)
            # Our encoder has no class token.
            base.embeddings.register_forward_hook(lambda _module, _given, states: states[:, 1:])
            answers[name + suffix] = base(given["pixels"]).last_hidden_state
        for name in VIDEOMAES[: 3 if biased else 2]:
            config = transformers.VideoMAEConfig(**VIDEOMAE, qkv_bias=biased)
            if not biased and hasattr(config, "qv_bias"):
                config.qv_bias = False
            # As their publishers have them: without a final norm once they are fine-tuned.
            config.use_mean_pooling = name == "VideoMAEForVideoClassification"
            base = made(name, config, "videomae", name + suffix)
            answers[name + suffix] = base(given["pixels"]).last_hidden_state
    np.savez_compressed(
        OUT / "answers.npz", **{name: np.asarray(value) for name, value in answers.items()}
    )


def made(name, config, base, folder):
    torch.manual_seed(0)
    model = getattr(transformers, name)(config).eval()
    for key, parameter in model.named_parameters():
        parameter.data.normal_(1 if "orm" in key and key.endswith("weight") else 0, 0.4)
    model.save_pretrained(OUT / folder)
    return getattr(model, base, model)


def tokenisers():
    text = "".join(CAPTIONS)
    # Slow and fast tokenisers read a vocab.txt otherwise where a piece is white space.
    letters = sorted(one for one in {*text, *text.lower()} if one.isprintable() and one != " ")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters]
    vocabulary += [f"##{letter}" for letter in letters if letter.isalnum()]
    ids = {}
    for name, options in TOKENISERS.items():
        for kind in KINDS:
            folder = OUT / "tokenisers" / f"{name}-{kind}"
            tokeniser = tokeniser_of(getattr(transformers, kind), vocabulary, options)
            if name == "added":
                token = transformers.AddedToken
                tokeniser.add_tokens(["<cat>", "newword", token("alone", single_word=True)])
                tokeniser.add_tokens([token("Exact", normalized=False)])
                tokeniser.add_tokens([token("<l>", lstrip=True), token("<r>", rstrip=True)])
                tokeniser.add_special_tokens({"additional_special_tokens": ["<ent>"]})
            tokeniser.save_pretrained(folder)
            # As a user of the folder gets it: the fast one, in every version.
            read = transformers.AutoTokenizer.from_pretrained(folder)
            assert read.is_fast
            ids[folder.name] = [read(caption)["input_ids"] for caption in CAPTIONS]
    values = {"captions": CAPTIONS, "ids": ids}
    (OUT / "ids.json").write_text(json.dumps(values, ensure_ascii=True) + "\n")


def tokeniser_of(kind, vocabulary, options):
    if len(KINDS) == 1:
        return kind(vocab={piece: place for place, piece in enumerate(vocabulary)}, **options)
    path = OUT / "vocab.txt"
    path.write_text("".join(piece + "\n" for piece in vocabulary), encoding="utf-8", newline="")
    made = kind(str(path), **options)
    path.unlink()
    return made


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    with torch.no_grad():
        models()
    tokenisers()
