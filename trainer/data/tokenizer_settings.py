"""Settings of a published WordPiece tokenizer, read from its files.

transformers writes up to six files, which overlap:

  tokenizer_config.json     class, casing, accents and, from 4.34 to 4.x, the added tokens
  tokenizer.json            all of the tokenizer, its vocabulary too; the only one besides
                            tokenizer_config.json from 5.0 on
  vocab.txt                 the vocabulary
  added_tokens.json         ids of tokens that are not in the vocabulary
  special_tokens_map.json   names of the special tokens
  config.json               the model's configuration; some name the tokenizer's class there

An unsupported setting, or one that differs between two files, raises an error that names it.
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from trainer.data.folder import read_file
from trainer.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The special tokens in BERT's order, so that [PAD] is 0 in trained and published vocabularies."""
CONTINUES = "##"
"""Prefix of each piece that does not begin a word."""
LONGEST_WORD = 100
"""Maximum length in characters of a word to split into pieces; a longer word is [UNK]."""

CONFIG, WHOLE, VOCABULARY = "tokenizer_config.json", "tokenizer.json", "vocab.txt"
_ADDED, _NAMES, _MODEL = "added_tokens.json", "special_tokens_map.json", "config.json"

_ANY_CLASS = ("PreTrainedTokenizerFast", "TokenizersBackend")  # tokenizer.json defines the kind
_CLASSES = ("BertTokenizer", "BertTokenizerFast", *_ANY_CLASS)
# Values of tokenizer_config.json that match this tokenizer, by name.
_ONLY: dict[str, tuple[Any, ...]] = {
    "do_basic_tokenize": (True, None),
    "never_split": (None, []),
    "clean_text": (True, None),
    "wordpieces_prefix": (CONTINUES, None),
    "padding_side": ("right", None),
    "truncation_side": ("right", None),
    "auto_map": (None, {}),
    "pad_token": ("[PAD]", None),
    "unk_token": ("[UNK]", None),
    "cls_token": ("[CLS]", None),
    "sep_token": ("[SEP]", None),
    "mask_token": ("[MASK]", None),
}
_MORE_SPECIAL = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class VocabularyError(UserError, ValueError):
    """A vocabulary that is missing, is not BERT's, or belongs to an unsupported tokenizer."""


class Added(NamedTuple):
    """A token that is matched in a text before the text is split into words."""

    content: str
    id: int
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True  # matched after lower-casing and stripping of accents
    special: bool = False


class Settings(NamedTuple):
    """Tokenizer settings besides the vocabulary; the defaults are BERT's uncased models'."""

    lowercase: bool = True
    strip_accents: bool | None = None  # None: same as `lowercase`
    split_chinese: bool = True
    added: tuple[Added, ...] = ()  # sorted by id, without BERT's own special tokens

    def to_json(self) -> dict[str, Any]:
        """Return the tokenizer_config.json of a tokenizer with these settings."""
        values: dict[str, Any] = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": self.lowercase,
            "strip_accents": self.strip_accents,
            "tokenize_chinese_chars": self.split_chinese,
        }
        if self.added:
            values["added_tokens_decoder"] = {
                str(added.id): {
                    "content": added.content,
                    **{flag: getattr(added, flag) for flag in _FLAGS},
                }
                for added in self.added
            }
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any], folder: str = "") -> "Settings":
        """Return the settings in a tokenizer_config.json, which may be empty.

        Raises:
          VocabularyError: a setting is not supported.
        """
        return Files(folder, values, {}, {}, {}, {}).settings(())

    def difference(self, other: "Settings") -> str | None:
        """Describe the first setting that differs in `other`; None if all are equal.

        >>> Settings().difference(Settings(lowercase=False))
        'lowercase is True, but False'
        """
        mine = self._replace(strip_accents=self._strips)
        theirs = other._replace(strip_accents=other._strips)
        for name, value in mine._asdict().items():
            if value != (their := getattr(theirs, name)):
                return f"{name} is {value}, but {their}"
        return None

    @property
    def _strips(self) -> bool:
        return self.lowercase if self.strip_accents is None else self.strip_accents


class Files(NamedTuple):
    """Contents of the files beside a vocabulary; a missing file is empty."""

    folder: str
    config: dict[str, Any]
    whole: dict[str, Any]
    added: dict[str, Any]
    names: dict[str, Any]
    model: dict[str, Any]

    @classmethod
    def read(cls, folder: str) -> "Files":
        """Read the files of a folder.

        Raises:
          VocabularyError: a file is damaged or cannot be read.
        """
        names = (CONFIG, WHOLE, _ADDED, _NAMES, _MODEL)
        return cls(folder, *(_read_json(os.path.join(folder, name)) for name in names))

    @property
    def silent(self) -> bool:
        """True if no file specifies whether text is lower-cased."""
        return self.config.get("do_lower_case") is None and not self.whole

    def pieces(self) -> list[str]:
        """Return the vocabulary in tokenizer.json, with "" at each id that no piece has.

        Such an id exists if a vocab.txt has a piece twice: its last line defines the id.

        Raises:
          VocabularyError: it is not WordPiece, or its ids are no line numbers of a vocab.txt.
        """
        path, model = os.path.join(self.folder, WHOLE), _part(self.whole, "model")
        if model.get("type") != "WordPiece":
            raise VocabularyError(
                f"{path}: the model is {model.get('type')!r}, but only 'WordPiece' is supported: "
                "use a BERT with a WordPiece tokenizer"
            )
        vocabulary = model.get("vocab")
        if not isinstance(vocabulary, dict) or not all(type(n) is int for n in vocabulary.values()):
            raise VocabularyError(f"{path} is damaged: its model has no vocab with ids")
        pieces = [""] * min(max(vocabulary.values(), default=0) + 1, 2 * len(vocabulary))
        for piece, place in vocabulary.items():
            if not 0 <= place < len(pieces) or pieces[place] or not _is_unicode(piece):
                raise VocabularyError(
                    f"{path}: {piece!r} has id {place}: it is not a text, or its id is a "
                    f"duplicate or out of range; the {len(vocabulary):,} pieces must have the ids "
                    "0, 1, 2 …"
                )
            pieces[place] = piece
        return pieces

    def settings(self, pieces: Iterable[str], default: Settings | None = None) -> Settings:
        """Return the settings of the tokenizer with this vocabulary.

        Args:
          pieces: the vocabulary.
          default: casing and accents if no file specifies them; None: BERT's uncased models'.

        Raises:
          VocabularyError: a setting is unknown, or differs between two files.
        """
        self._check_class()
        self._check_config()
        flags = self._flags() if self.whole else {}
        if self.silent and default:
            flags = default._asdict()
        chosen = {}
        for name, key, usual in (
            ("lowercase", "do_lower_case", True),
            ("strip_accents", "strip_accents", None),
            ("split_chinese", "tokenize_chinese_chars", True),
        ):
            said = self.config.get(key)
            if said is not None and type(said) is not bool:
                raise VocabularyError(
                    f"{os.path.join(self.folder, CONFIG)}: {key} is {said!r}, but must be true or "
                    "false"
                )
            chosen[name] = flags.get(name, usual) if said is None else said
        settings = Settings(**chosen)
        if self.whole and (differs := settings.difference(Settings(**flags))):
            raise VocabularyError(
                f"{self.folder}: in {CONFIG} {differs} in {WHOLE}: correct the wrong one"
            )
        ids = {piece: place for place, piece in enumerate(pieces)}
        return settings._replace(added=self._added(ids))

    def _check_class(self) -> None:
        for file, values in ((CONFIG, self.config), (_MODEL, self.model)):
            found = values.get("tokenizer_class")
            if found is None:
                continue
            if found not in _CLASSES:
                raise VocabularyError(
                    f"{os.path.join(self.folder, file)}: tokenizer_class is {found!r}, but only "
                    f"{', '.join(_CLASSES)} are supported"
                )
            if found in _ANY_CLASS and not self.whole:
                raise VocabularyError(
                    f"{self.folder} has no {WHOLE}, which tokenizer_class {found!r} requires: add "
                    "it"
                )

    def _check_config(self) -> None:
        # A processor's code does not concern the tokenizer.
        code = self.config.get("auto_map")
        if isinstance(code, dict):
            code = {name: path for name, path in code.items() if name != "AutoProcessor"}
        for file, values in ((CONFIG, self.config | {"auto_map": code}), (_NAMES, self.names)):
            for name, allowed in _ONLY.items():
                if (found := _content(values.get(name))) not in allowed:
                    raise VocabularyError(
                        f"{os.path.join(self.folder, file)}: {name} is {found!r}, but only "
                        f"{allowed[0]!r} is supported"
                    )

    def _flags(self) -> dict[str, Any]:
        """Return the casing, accent and Chinese character flags of tokenizer.json."""
        path = os.path.join(self.folder, WHOLE)
        normalizer = _part(self.whole, "normalizer")
        for part, found, wanted in (
            ("normalizer", normalizer.get("type"), "BertNormalizer"),
            ("pre_tokenizer", _part(self.whole, "pre_tokenizer").get("type"), "BertPreTokenizer"),
            ("the normalizer's clean_text", normalizer.get("clean_text"), True),
            ("unk_token", _part(self.whole, "model").get("unk_token"), "[UNK]"),
            (
                "continuing_subword_prefix",
                _part(self.whole, "model").get("continuing_subword_prefix"),
                CONTINUES,
            ),
            (
                "max_input_chars_per_word",
                _part(self.whole, "model").get("max_input_chars_per_word"),
                LONGEST_WORD,
            ),
            ("post_processor", _around(_part(self.whole, "post_processor")), "[CLS] [SEP]"),
        ):
            if found != wanted:
                raise VocabularyError(
                    f"{path}: {part} is {found!r}, but only {wanted!r} is supported"
                )
        flags = {
            "lowercase": normalizer.get("lowercase"),
            "strip_accents": normalizer.get("strip_accents"),
            "split_chinese": normalizer.get("handle_chinese_chars"),
        }
        for name, found in flags.items():
            if type(found) is not bool and not (name == "strip_accents" and found is None):
                raise VocabularyError(f"{path}: the normalizer's {name} is {found!r}")
        return flags

    def _added(self, ids: Mapping[str, int]) -> tuple[Added, ...]:
        """Return the added tokens of all files, without BERT's own special tokens."""
        found: dict[str, Added] = {}
        for file, token in self._tokens(ids):
            if token.content in SPECIAL:
                continue
            known = found.setdefault(token.content, token)
            if known.id != token.id:
                raise VocabularyError(
                    f"{self.folder}: the added token {token.content!r} has id {token.id} in "
                    f"{file}, but {known.id} in another file"
                )
        return tuple(sorted(found.values(), key=lambda token: token.id))

    def _tokens(self, ids: Mapping[str, int]) -> Iterable[tuple[str, Added]]:
        """Yield each file's added tokens, starting with the most detailed files."""
        for file, values in ((CONFIG, self.config), (_NAMES, self.names)):
            for name, kinds in (
                ("added_tokens_decoder", (dict, type(None))),
                *((name, (list, dict, type(None))) for name in _MORE_SPECIAL),
            ):
                if type(values.get(name)) not in kinds:
                    raise VocabularyError(
                        f"{os.path.join(self.folder, file)} is damaged: {name} is "
                        f"{values[name]!r:.80}"
                    )
        decoder = _part(self.config, "added_tokens_decoder")
        listed = self.whole.get("added_tokens") or []
        if not isinstance(listed, list):
            raise VocabularyError(f"{os.path.join(self.folder, WHOLE)}: added_tokens is not a list")
        for values in listed:
            yield WHOLE, self._token(WHOLE, values, isinstance(values, dict) and values.get("id"))
        for place, values in decoder.items():
            place = int(place) if place.isdecimal() else place
            yield CONFIG, self._token(CONFIG, values, place)
        special = [
            _content(one)
            for values in (self.config, self.names)
            for name in _MORE_SPECIAL
            for one in _listed(values.get(name))
        ]
        for content, place in self.added.items():
            is_special = content in special
            values = {"content": content, "special": is_special, "normalized": not is_special}
            yield _ADDED, self._token(_ADDED, values, place)
        given = {one["content"]: one["id"] for one in listed}
        given |= {one["content"]: int(place) for place, one in decoder.items()}
        for content in special:
            place = given.get(content, self.added.get(content, ids.get(content)))
            if place is None:
                raise VocabularyError(
                    f"{self.folder}: the special token {content!r} has no id in any file"
                )
            values = {"content": content, "special": True, "normalized": False}
            yield _NAMES, self._token(_NAMES, values, place)

    def _token(self, file: str, values: Any, place: Any) -> Added:
        if (
            not isinstance(values, dict)
            or not isinstance(values.get("content"), str)
            or not values["content"]
            or not _is_unicode(values["content"])
            or type(place) is not int
            or not all(type(values.get(flag, False)) is bool for flag in _FLAGS)
        ):
            raise VocabularyError(
                f"{os.path.join(self.folder, file)} is damaged: the added token {values!r:.80} or "
                f"its id {place!r:.20} is invalid"
            )
        flags = {flag: values[flag] for flag in _FLAGS if flag in values}
        return Added(values["content"], place, **flags)


def read_settings(folder: str) -> Settings | None:
    """Read the tokenizer_config.json of a run; None without one: such a run lower-cases text.

    Raises:
      VocabularyError: it is damaged, cannot be read or has an unsupported setting.
    """
    values = _read_json(os.path.join(folder, CONFIG))
    return Settings.from_json(values, folder) if values else None


def _read_json(path: str) -> dict[str, Any]:
    try:
        values = json.loads(read_file(path).decode())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise VocabularyError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise VocabularyError(f"{path} is damaged: it is not a JSON object")
    return values


def _is_unicode(text: str) -> bool:
    """Return whether a text can be encoded: JSON may contain half of a surrogate pair."""
    return text == text.encode(errors="replace").decode()


def _part(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object inside an object; empty if it is missing."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _content(value: Any) -> Any:
    """Return a token's text, which some files wrap in an object with its flags."""
    return value.get("content") if isinstance(value, dict) and "content" in value else value


def _listed(value: Any) -> list[Any]:
    """Return the tokens of a list, or the values of an object of named tokens."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _around(processor: dict[str, Any]) -> str:
    """Return the special tokens that tokenizer.json puts before and after a text."""
    if processor.get("type") in ("BertProcessing", "RobertaProcessing"):
        ends = [processor.get("cls"), processor.get("sep")]
        return " ".join(str(end[0]) for end in ends if isinstance(end, list) and end)
    single = processor.get("single")
    tokens = []
    for item in single if isinstance(single, list) else []:
        special = _part(item, "SpecialToken") if isinstance(item, dict) else {}
        tokens.append(str(special.get("id", "text")))
    if tokens.count("text") != 1 or len(tokens) != 3 or tokens[1] != "text":
        return " ".join(tokens)
    return f"{tokens[0]} {tokens[2]}"
