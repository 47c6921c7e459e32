"""WordPiece tokenization of BERT's models: text in, ids and mask out."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Bool, Int32
from tokenizers import models, normalizers, pre_tokenizers, trainers

from trainer.data.folder import read_file, write_file
from trainer.data.tokenizer_settings import (
    CONFIG,
    CONTINUES,
    LONGEST_WORD,
    SPECIAL,
    VOCABULARY,
    WHOLE,
    Added,
    Files,
    Settings,
    VocabularyError,
    read_settings,
)

__all__ = ["Tokenizer", "VocabularyError"]

# Row of a published vocabulary that a user may assign a meaning.
_UNUSED = re.compile(r"\[unused\d+\]")


class Tokenizer:
    """Tokenizer that splits text into words and words into the vocabulary's pieces.

    The ids are those of transformers' BertTokenizerFast with the same files, with one exception.
    "[SEP]" and BERT's other special tokens in a caption are ordinary words.
    """

    def __init__(self, vocabulary: Sequence[str], settings: Settings | None = None) -> None:
        """Build the tokenizer.

        Args:
          vocabulary: the pieces; a piece's index is its id.
          settings: casing, accents and added tokens; None: those of BERT's uncased models.

        Raises:
          VocabularyError: a special token of BERT is missing, or an added token has the wrong id.
        """
        self.settings = settings or Settings()
        ids = {piece: place for place, piece in enumerate(vocabulary)}
        missing = [piece for piece in SPECIAL if piece not in ids]
        if missing:
            raise VocabularyError(f"the vocabulary lacks {', '.join(missing)}: give BERT's")
        self._tokenizer = _tokenizer(ids, self.settings)
        self.vocabulary = tuple(vocabulary)
        more = [added.content for added in self.settings.added if added.content not in ids]
        self.pieces = (*self.vocabulary, *more)
        """The vocabulary and the added tokens that it lacks: a piece's index is its id."""
        for added in self.settings.added:
            if (place := self._tokenizer.token_to_id(added.content)) != added.id:
                raise VocabularyError(
                    f"the added token {added.content!r} has id {added.id}, but its index after "
                    f"the {len(self.vocabulary):,} pieces of the vocabulary is {place}"
                )
        self._pad, self._start, self._end = ids["[PAD]"], ids["[CLS]"], ids["[SEP]"]

    @classmethod
    def from_vocabulary(
        cls, path: str | os.PathLike[str], default: Settings | None = None
    ) -> "Tokenizer":
        """Read a published tokenizer, on a disk or in a bucket.

        Args:
          path: a folder that transformers wrote; or its vocab.txt or tokenizer.json, with the other
            files in the same folder; or a file of another name with one piece per line, in the
            order of the ids.
          default: the settings for a file of another name, and for files that do not specify
            lower-casing; None: those of BERT's uncased models.

        Raises:
          VocabularyError: a file cannot be read, is no BERT vocabulary, or has an unsupported
            setting.
        """
        path = os.fspath(path)
        if os.path.isdir(path):
            path = os.path.join(path, WHOLE if not _is_file(path, VOCABULARY) else VOCABULARY)
        folder, name = os.path.split(path)
        if name not in (VOCABULARY, WHOLE):
            pieces = _lines(path)
            if default is None:
                _check_lower_case(pieces, path)
            return cls._of_file(path, pieces, default)
        files = Files.read(folder)
        if name == WHOLE and not files.whole:
            raise VocabularyError(
                f"vocabulary {path} cannot be read: No such file or directory; give a BERT "
                f"{VOCABULARY} or {WHOLE}"
            )
        pieces = _lines(path) if name == VOCABULARY else files.pieces()
        if name == VOCABULARY and files.whole:
            last = {piece: place for place, piece in enumerate(pieces)}
            counted = [piece if last[piece] == place else "" for place, piece in enumerate(pieces)]
            if differs := difference(counted, files.pieces()):
                raise VocabularyError(f"{path}: {differs} in {WHOLE} of the same folder")
        if files.silent and default is None:
            _check_lower_case(pieces, path)
        return cls._of_file(path, pieces, files.settings(pieces, default))

    @classmethod
    def from_run(cls, folder: str | os.PathLike[str]) -> "Tokenizer":
        """Read the tokenizer that `save` wrote; without settings (old releases), lower-case text.

        Raises:
          VocabularyError: a file is damaged.
        """
        folder = os.fspath(folder)
        path = os.path.join(folder, VOCABULARY)
        pieces = _lines(path)
        return cls._of_file(path, pieces, read_settings(folder))

    @classmethod
    def to_continue(
        cls, folder: str | os.PathLike[str], given: str | os.PathLike[str]
    ) -> tuple["Tokenizer", str | None]:
        """Read the vocabulary that a command gives to continue a run.

        A run of an earlier release has no settings. It read the pieces alone and lower-cased text,
        regardless of other files. It continues to do so.

        Args:
          folder: the run's folder.
          given: the vocabulary, as in `from_vocabulary`.

        Returns:
          The tokenizer to compare with the run's. Also, if a run of an earlier release continues
          with settings other than those of the files, a description of the difference.

        Raises:
          VocabularyError: as `from_vocabulary`, or a file of the run is damaged.
        """
        run = cls.from_run(folder)
        if read_settings(os.fspath(folder)) is not None:
            return cls.from_vocabulary(given, run.settings), None
        try:
            read = cls.from_vocabulary(given, run.settings)
            pieces, differs = read.vocabulary, run.settings.difference(read.settings)
        except VocabularyError as error:
            path = _text_file(os.fspath(given))
            if path is None:
                raise
            pieces, differs = _lines(path), str(error)
        return cls._of_file(os.fspath(given), pieces, run.settings), differs

    @classmethod
    def _of_file(cls, path: str, pieces: Sequence[str], settings: Settings | None) -> "Tokenizer":
        try:
            return cls(pieces, settings)
        except VocabularyError as error:
            raise VocabularyError(f"{path}: {error}") from None

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> "Tokenizer":
        """Train a vocabulary of at most `size` pieces on texts, whose order does not matter.

        Raises:
          ValueError: `size` is too small for the special pieces and the single characters.

        >>> tokenizer = Tokenizer.train(["a red ring", "a red disc"], size=40)
        >>> len(tokenizer.pieces), tokenizer.encode(["a red ring"], tokens=6)[0].shape
        (31, (1, 6))
        """
        untrained = _tokenizer({}, Settings())
        texts = [untrained.normalizer.normalize_str(text) for text in texts]
        characters = sorted(set("".join("".join(texts).split())))
        # The trainer numbers single characters in the order of a hash map, which differs from run
        # to run. It breaks ties by number. As special pieces the characters have fixed numbers.
        fixed = [*SPECIAL, *characters, *(CONTINUES + character for character in characters)]
        if size < len(fixed):
            raise ValueError(
                f"a vocabulary of {size} pieces is smaller than the {len(fixed)} special pieces "
                "and characters of these texts"
            )
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            special_tokens=fixed,
            continuing_subword_prefix=CONTINUES,
            show_progress=False,
        )
        untrained.train_from_iterator(texts, trainer)
        ids = untrained.get_vocab()
        return cls(sorted(ids, key=ids.__getitem__))

    def save(self, path: str | os.PathLike[str], tokens: int | None = None) -> None:
        """Write a vocab.txt and a tokenizer_config.json in the same folder.

        Args:
          path: path of the vocab.txt.
          tokens: maximum length of texts, for programs that read the folder; None omits it.
        """
        path = os.fspath(path)
        write_file(path, "".join(piece + "\n" for piece in self.vocabulary).encode())
        values = self.settings.to_json()
        if tokens:
            values |= {"model_max_length": tokens}
            values |= {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
        config = os.path.join(os.path.dirname(path), CONFIG)
        write_file(config, json.dumps(values, indent=2).encode() + b"\n")

    def to_json(self) -> dict[str, Any]:
        """Return the tokenizer as a checkpoint stores it."""
        return {"pieces": list(self.vocabulary), "settings": self.settings.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Tokenizer":
        """Return the tokenizer that `to_json` described; without settings it lower-cases text.

        Raises:
          VocabularyError: a setting is unknown.
        """
        return cls(values["pieces"], Settings.from_json(values.get("settings", {})))

    def difference(self, other: "Tokenizer") -> str | None:
        """Describe the first way in which `other` gives different ids; None if it gives the same.

        >>> first = Tokenizer([*SPECIAL, "ring", "disc"])
        >>> first.difference(Tokenizer([*SPECIAL, "disc", "ring"]))
        "line 6 is 'ring', but 'disc'"
        """
        return difference(self.vocabulary, other.vocabulary) or self.settings.difference(
            other.settings
        )

    def unfit_for(self, known: "Tokenizer") -> str | None:
        """Return why these ids do not suit an encoder trained on `known`; None if they do.

        Unused rows of `known` may have a meaning here: [unused0] and so on, and rows past its end.

        >>> known = Tokenizer([*SPECIAL, "[unused0]", "ring"])
        >>> Tokenizer([*SPECIAL, "mug", "ring", "disc"]).unfit_for(known)
        >>> Tokenizer([*SPECIAL, "ring", "mug"]).unfit_for(known)
        "line 7 is 'mug', but 'ring'"
        """
        mine = [
            known.vocabulary[place]
            if place < len(known.vocabulary) and _UNUSED.fullmatch(known.vocabulary[place])
            else piece
            for place, piece in enumerate(self.vocabulary)
        ]
        # Tokens that were added to `known` give a meaning to rows after its vocabulary.
        theirs = known.vocabulary if not known.settings.added else known.pieces
        return difference(mine[: len(theirs)], theirs) or self.settings.difference(known.settings)

    def encode(
        self, texts: Sequence[str], tokens: int
    ) -> tuple[Int32[np.ndarray, "n L"], Bool[np.ndarray, "n L"]]:
        """Tokenize texts to a fixed length: [CLS] pieces [SEP], cut or padded with [PAD].

        Args:
          texts: n texts.
          tokens: L, including [CLS] and [SEP].

        Returns:
          Ids, and a mask that is False at the padding.

        Raises:
          VocabularyError: a text is invalid Unicode, such as terminal input that is not UTF-8.
        """
        for text in texts:
            if text != text.encode(errors="replace").decode():
                raise VocabularyError(f"text {text!r:.80} has unpaired surrogates: give UTF-8")
        ids = np.full((len(texts), tokens), self._pad, np.int32)
        lengths = np.zeros(len(texts), np.int64)
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for row, encoding in enumerate(encodings):
            pieces = [self._start, *encoding.ids[: tokens - 2], self._end]
            ids[row, : len(pieces)] = pieces
            lengths[row] = len(pieces)
        return ids, np.arange(tokens) < lengths[:, None]


def difference(mine: Sequence[str], others: Sequence[str]) -> str | None:
    """Describe the first line in which two vocabularies differ; None if they are equal.

    >>> difference(["a", "b"], ["a"])
    "line 2 is 'b', but absent"
    """
    for line in range(max(len(mine), len(others))):
        pair = [repr(some[line]) if line < len(some) else "absent" for some in (mine, others)]
        if pair[0] != pair[1]:
            return f"line {line + 1} is {pair[0]}, but {pair[1]}"
    return None


def _text_file(path: str) -> str | None:
    """Return the path of the vocab.txt given as a file or by its folder; None without one."""
    if not os.path.isdir(path):
        return path if os.path.basename(path) != WHOLE else None
    return os.path.join(path, VOCABULARY) if _is_file(path, VOCABULARY) else None


def _is_file(folder: str, name: str) -> bool:
    return os.path.isfile(os.path.join(folder, name))


def _lines(path: str) -> list[str]:
    try:
        # Some pieces are Unicode line separators, so only "\n" ends a line.
        lines = read_file(path).decode().removesuffix("\n").split("\n")
    except OSError as error:
        raise VocabularyError(
            f"vocabulary {path} cannot be read: {error.strerror}; give a BERT {VOCABULARY}"
        ) from error
    except UnicodeDecodeError as error:
        raise VocabularyError(f"vocabulary {path} is not UTF-8 text: {error}") from error
    return [line.removesuffix("\r") for line in lines]


def _check_lower_case(pieces: Sequence[str], path: str) -> None:
    """Raise if a cased vocabulary comes without a casing setting, as its text is lower-cased."""
    for place, piece in enumerate(pieces):
        if re.search("[A-Z]", piece) and not re.fullmatch(r"\[.*\]|<.*>", piece):
            raise VocabularyError(
                f"{path}: line {place + 1} is {piece!r}, which lower-cased text never contains, "
                f"and no file declares the case: name the file {VOCABULARY} and add {CONFIG} to "
                f'its folder, with {{"do_lower_case": false}} or true'
            )


def _tokenizer(ids: dict[str, int], settings: Settings) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(
            ids,
            unk_token="[UNK]",
            continuing_subword_prefix=CONTINUES,
            max_input_chars_per_word=LONGEST_WORD,
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=settings.lowercase,
        strip_accents=settings.strip_accents,
        handle_chinese_chars=settings.split_chinese,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    for added in settings.added:
        tokenizer.add_tokens([_added_token(added)])
    return tokenizer


def _added_token(added: Added) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        added.content,
        single_word=added.single_word,
        lstrip=added.lstrip,
        rstrip=added.rstrip,
        normalized=added.normalized,
        special=added.special,
    )
