"""Ids are those of transformers, from the folders that its versions write.

tests/data/transformers/make.py made the folders and the ids, each with the version of its name.
"""

import json
import pathlib
import shutil

import pytest

from trainer.data.tokenizer import Tokenizer, VocabularyError
from trainer.data.tokenizer_settings import SPECIAL, Added, Settings

DATA = pathlib.Path(__file__).parents[2] / "data" / "transformers"
VERSIONS = sorted(path.name for path in DATA.iterdir() if path.is_dir())
FOLDERS = [
    path.relative_to(DATA)
    for version in VERSIONS
    for path in sorted((DATA / version / "tokenisers").iterdir())
]


def ids_of(tokenizer, texts):
    ids, mask = tokenizer.encode(texts, tokens=256)
    return [row[:length].tolist() for row, length in zip(ids, mask.sum(axis=1), strict=True)]


def written(folder):
    told = json.loads((DATA / folder.parts[0] / "ids.json").read_text())
    return told["captions"], told["ids"][folder.name]


def test_five_versions_are_tried():
    assert len(VERSIONS) == 5 and len(FOLDERS) == 6 * (2 + 2 + 1 + 1 + 1)


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_ids_of_published_tokenizers(folder, tmp_path):
    captions, wanted = written(folder)
    tokenizer = Tokenizer.from_vocabulary(DATA / folder)
    for caption, ours, theirs in zip(captions, ids_of(tokenizer, captions), wanted, strict=True):
        assert ours == theirs, caption
    # As a run and as a checkpoint have it.
    tokenizer.save(tmp_path / "vocab.txt")
    of_run = Tokenizer.from_run(tmp_path)
    of_checkpoint = Tokenizer.from_json(json.loads(json.dumps(tokenizer.to_json())))
    for again in (of_run, of_checkpoint):
        assert tokenizer.difference(again) is None and again.pieces == tokenizer.pieces
        assert ids_of(again, captions) == wanted
    # As the export has it.
    assert ids_of(Tokenizer.from_vocabulary(tmp_path), captions) == wanted


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_a_file_is_read_with_the_settings_beside_it(name):
    folder = DATA / "4.57.6" / "tokenisers" / "cased-BertTokenizerFast"
    tokenizer = Tokenizer.from_vocabulary(folder / name)
    assert not tokenizer.settings.lowercase
    assert tokenizer.difference(Tokenizer.from_vocabulary(folder)) is None


def test_runs_without_settings_are_lower_cased(tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in [*SPECIAL, "The", "the"]))
    for tokenizer in (
        Tokenizer.from_run(tmp_path),
        Tokenizer.from_json({"pieces": [*SPECIAL, "The", "the"]}),
    ):
        assert tokenizer.settings == Settings()
        assert ids_of(tokenizer, ["The"]) == [[2, 6, 3]]


@pytest.mark.parametrize("name", ["vocab.txt", "mine.txt"])
def test_a_cased_vocabulary_that_nothing_says_is_cased(name, tmp_path):
    (tmp_path / name).write_text("".join(f"{piece}\n" for piece in [*SPECIAL, "the", "##S", "a"]))
    with pytest.raises(VocabularyError, match=r"line 7 is '##S'.*do_lower_case"):
        Tokenizer.from_vocabulary(tmp_path / name)
    (tmp_path / "vocab.txt").write_text((tmp_path / name).read_text())
    for lowercase in (True, False):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
        assert Tokenizer.from_vocabulary(tmp_path).settings.lowercase is lowercase


@pytest.fixture
def earlier(tmp_path):
    """A run of an earlier release, and the folder of the cased BERT that it started from."""
    for name in ("run", "bert"):
        (tmp_path / name).mkdir()
        pieces = "".join(f"{piece}\n" for piece in [*SPECIAL, "The", "the"])
        (tmp_path / name / "vocab.txt").write_text(pieces)
    return tmp_path / "run", tmp_path / "bert" / "vocab.txt"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, None),
        ({"do_lower_case": True}, None),
        ({"do_lower_case": False}, "lowercase is True, but False"),
        (
            {"tokenizer_class": "ElectraTokenizer"},
            "tokenizer_class is 'ElectraTokenizer', but only",
        ),
    ],
)
def test_a_run_of_an_earlier_release_resumes_with_its_vocabulary(earlier, said, told):
    run, given = earlier
    if said:
        (given.parent / "tokenizer_config.json").write_text(json.dumps(said))
    for vocabulary in (given, given.parent, run / "vocab.txt"):
        tokenizer, differs = Tokenizer.to_continue(run, vocabulary)
        assert tokenizer.difference(Tokenizer.from_run(run)) is None
        assert ids_of(tokenizer, ["The"]) == [[2, 6, 3]]
        assert (differs is None) == (told is None or vocabulary.parent == run)
        assert differs is None or str(told) in differs
    given.write_text(given.read_text() + "more\n")
    tokenizer, _ = Tokenizer.to_continue(run, given)
    assert tokenizer.difference(Tokenizer.from_run(run)) == "line 8 is 'more', but absent"
    with pytest.raises(VocabularyError, match=r"absent\.txt cannot be read"):
        Tokenizer.to_continue(run, run / "absent.txt")


def test_a_run_with_settings_keeps_them(earlier):
    run, given = earlier
    cased = Tokenizer([*SPECIAL, "The", "the"], Settings(lowercase=False))
    cased.save(run / "vocab.txt")
    tokenizer, differs = Tokenizer.to_continue(run, given)  # nothing says how it is
    assert (tokenizer.difference(cased), differs) == (None, None)
    (given.parent / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    tokenizer, differs = Tokenizer.to_continue(run, given)
    assert tokenizer.settings.lowercase and differs is None  # for the caller to refuse


@pytest.fixture
def altered(tmp_path):
    """Copy a folder with other values in one of its files."""

    def alter(file, change, version="4.57.6", name="added-BertTokenizerFast"):
        copy = tmp_path / "altered"
        shutil.copytree(DATA / version / "tokenisers" / name, copy)
        values = json.loads((copy / file).read_text()) if (copy / file).exists() else {}
        change(values)
        (copy / file).write_text(json.dumps(values))
        return copy

    return alter


def put(path, value):
    def change(values):
        *above, last = path.split(".")
        for name in above:
            values = values[int(name) if name.isdecimal() and isinstance(values, list) else name]
        values[last] = value

    return change


@pytest.mark.parametrize(
    ("file", "path", "value", "told"),
    [
        ("tokenizer_config.json", "do_lower_case", False, "lowercase is False, but True"),
        ("tokenizer_config.json", "do_lower_case", "no", "do_lower_case is 'no'"),
        ("tokenizer_config.json", "strip_accents", False, "strip_accents is False, but True"),
        ("tokenizer_config.json", "tokenize_chinese_chars", False, "split_chinese is False"),
        ("tokenizer_config.json", "tokenizer_class", "BertJapaneseTokenizer", "BertJapaneseTok"),
        ("config.json", "tokenizer_class", "XLMRobertaTokenizer", "XLMRobertaTokenizer"),
        ("tokenizer_config.json", "do_basic_tokenize", False, "do_basic_tokenize is False"),
        ("tokenizer_config.json", "never_split", ["ring"], "never_split is ['ring']"),
        ("tokenizer_config.json", "padding_side", "left", "padding_side is 'left'"),
        ("tokenizer_config.json", "truncation_side", "left", "truncation_side is 'left'"),
        ("tokenizer_config.json", "cls_token", "<s>", "cls_token is '<s>'"),
        ("tokenizer_config.json", "cls_token", {"content": "<s>"}, "cls_token is '<s>'"),
        ("special_tokens_map.json", "sep_token", "</s>", "sep_token is '</s>'"),
        ("tokenizer_config.json", "auto_map", {"AutoTokenizer": ["x", None]}, "auto_map is"),
        ("tokenizer_config.json", "extra_special_tokens", {"a": "<new>"}, "'<new>' has no id"),
        ("added_tokens.json", "<cat>", 7, "'<cat>' has id 7 in added_tokens.json, but 324"),
        ("added_tokens.json", "<dog>", 9000, "'<dog>' has id 9000, but its index"),
        ("added_tokens.json", "<dog>", "7", "the added token"),
        (
            "tokenizer.json",
            "model.type",
            "BPE",
            "the model is 'BPE', but only 'WordPiece' is supported",
        ),
        ("tokenizer.json", "model.type", "Unigram", "the model is 'Unigram'"),
        ("tokenizer.json", "model", None, "the model is None"),
        ("tokenizer.json", "model.unk_token", "<unk>", "unk_token is '<unk>'"),
        (
            "tokenizer.json",
            "model.continuing_subword_prefix",
            "",
            "continuing_subword_prefix is ''",
        ),
        ("tokenizer.json", "model.max_input_chars_per_word", 9, "max_input_chars_per_word is 9"),
        ("tokenizer.json", "model.vocab", ["a"], "its model has no vocab"),
        ("tokenizer.json", "model.vocab.the", 100_000, "'the' has id 100000"),
        ("tokenizer.json", "model.vocab.the", -1, "'the' has id -1"),
        (
            "tokenizer.json",
            "model.vocab.the",
            5,
            "'the' has id 5: it is not a text, or its id is a duplicate",
        ),
        ("tokenizer.json", "model.vocab.\ud83d", 999, "'\\ud83d' has id 999: it is not a text"),
        (
            "tokenizer.json",
            "added_tokens",
            [{"content": "\ud83d", "id": 1}],
            "is damaged: the added",
        ),
        ("added_tokens.json", "\ud83d", 999, "the added token"),
        ("tokenizer_config.json", "added_tokens_decoder", [1], "added_tokens_decoder is [1]"),
        ("tokenizer_config.json", "extra_special_tokens", "<x>", "extra_special_tokens is '<x>'"),
        (
            "special_tokens_map.json",
            "additional_special_tokens",
            3,
            "additional_special_tokens is 3",
        ),
        ("tokenizer.json", "normalizer", None, "normalizer is None, but only 'BertNormalizer'"),
        ("tokenizer.json", "normalizer.type", "Lowercase", "normalizer is 'Lowercase'"),
        ("tokenizer.json", "normalizer.clean_text", False, "the normalizer's clean_text is False"),
        ("tokenizer.json", "normalizer.lowercase", "yes", "the normalizer's lowercase is 'yes'"),
        ("tokenizer.json", "pre_tokenizer.type", "Whitespace", "pre_tokenizer is 'Whitespace'"),
        ("tokenizer.json", "post_processor", None, "post_processor is ''"),
        ("tokenizer.json", "post_processor.single", [{"Sequence": {}}], "post_processor is"),
        ("tokenizer.json", "added_tokens", {"a": 1}, "added_tokens is not a list"),
        ("tokenizer.json", "added_tokens", [{"content": 3, "id": 1}], "is damaged: the added"),
    ],
)
def test_unsupported_tokenizer_settings_are_named(altered, file, path, value, told):
    with pytest.raises(VocabularyError) as caught:
        Tokenizer.from_vocabulary(altered(file, put(path, value)))
    assert told in str(caught.value)


def test_two_vocabularies_in_a_folder_must_be_one(altered):
    folder = altered("tokenizer.json", lambda values: None)
    lines = (folder / "vocab.txt").read_text().split("\n")
    lines[6], lines[7] = lines[7], lines[6]
    (folder / "vocab.txt").write_text("\n".join(lines))
    with pytest.raises(VocabularyError, match=r"vocab.txt: line 7 is 'Cat', but 'the' in tokenize"):
        Tokenizer.from_vocabulary(folder)


@pytest.mark.parametrize("text", ["[]", "{", "\xff", '{"a": ' + "[" * 100_000])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "tokenizer.json", "added_tokens.json"])
def test_damaged_files(altered, file, text):
    folder = altered(file, lambda values: None)
    (folder / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(VocabularyError, match=rf"{file} is damaged"):
        Tokenizer.from_vocabulary(folder)


def test_a_special_token_of_the_vocabulary_is_found_in_text(tmp_path):
    pieces = [*SPECIAL, "[unused1]", "a", "[", "]", "un", "##used", "##1"]
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    names = {"additional_special_tokens": ["[unused1]"]}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    tokenizer = Tokenizer.from_vocabulary(tmp_path)
    assert tokenizer.settings.added == (Added("[unused1]", 5, normalized=False, special=True),)
    assert ids_of(tokenizer, ["a [unused1]"]) == [[2, 6, 5, 3]]
    assert tokenizer.pieces == tuple(pieces)


def test_a_folder_without_a_vocabulary(tmp_path):
    with pytest.raises(VocabularyError, match=r"tokenizer\.json cannot be read: No such file"):
        Tokenizer.from_vocabulary(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "a"]))
    with pytest.raises(VocabularyError, match=r"has no tokenizer\.json, which tokenizer_class"):
        Tokenizer.from_vocabulary(tmp_path)
