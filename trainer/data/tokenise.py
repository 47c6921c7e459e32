"""WordPiece tokenisation as BERT's uncased models have it: text in, ids and mask out."""

import os
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from jaxtyping import Bool, Int32
from tokenizers import models, normalizers, pre_tokenizers, trainers

from trainer.data.folder import read_file, write_file

# In BERT's order, so that [PAD] is 0 in a trained vocabulary as in a published one.
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTINUES = "##"


class VocabularyError(ValueError):
    """A vocabulary file that is absent or not one of BERT's; or a text that none has."""


class Tokeniser:
    """Lower-cases, strips accents, splits into words and those into the vocabulary's pieces."""

    def __init__(self, pieces: Sequence[str]) -> None:
        """Args: pieces: the vocabulary; a piece's place is its id."""
        self.pieces = tuple(pieces)
        ids = {piece: place for place, piece in enumerate(self.pieces)}
        missing = [piece for piece in _SPECIAL if piece not in ids]
        if missing:
            raise VocabularyError(f"the vocabulary lacks {', '.join(missing)}: it is not BERT's")
        self._tokenizer = _tokenizer(ids)
        self._pad, self._start, self._end = ids["[PAD]"], ids["[CLS]"], ids["[SEP]"]

    @classmethod
    def from_vocabulary(cls, path: str | os.PathLike[str]) -> "Tokeniser":
        """Reads a vocab.txt, on a disk or in a bucket: one piece a line, in the order of the ids.

        Raises:
          VocabularyError: the file cannot be read or is no BERT vocabulary.
        """
        try:
            # Some pieces are Unicode line separators, so lines end at "\n" only.
            pieces = read_file(path).decode().removesuffix("\n").split("\n")
        except OSError as error:
            raise VocabularyError(
                f"vocabulary {path} cannot be read: {error.strerror}; give a BERT vocab.txt"
            ) from error
        except UnicodeDecodeError as error:
            raise VocabularyError(f"vocabulary {path} is not UTF-8 text: {error}") from error
        try:
            return cls([piece.removesuffix("\r") for piece in pieces])
        except VocabularyError as error:
            raise VocabularyError(f"{path}: {error}") from error

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> "Tokeniser":
        """Makes a vocabulary of at most `size` pieces from texts, whose order does not matter.

        Raises:
          ValueError: `size` does not even hold the special pieces and the single characters.

        >>> tokeniser = Tokeniser.train(["a red ring", "a red disc"], size=40)
        >>> len(tokeniser.pieces), tokeniser.encode(["a red ring"], tokens=6)[0].shape
        (31, (1, 6))
        """
        untrained = _tokenizer({})
        texts = [untrained.normalizer.normalize_str(text) for text in texts]
        characters = sorted(set("".join("".join(texts).split())))
        # The trainer numbers single characters in the order of a hash map, which differs from
        # run to run, and breaks ties by number. Given as special pieces, they have fixed numbers.
        fixed = [*_SPECIAL, *characters, *(_CONTINUES + character for character in characters)]
        if size < len(fixed):
            raise ValueError(
                f"a vocabulary of {size} pieces cannot hold the {len(fixed)} special "
                "pieces and characters of these texts"
            )
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            special_tokens=fixed,
            continuing_subword_prefix=_CONTINUES,
            show_progress=False,
        )
        untrained.train_from_iterator(texts, trainer)
        ids = untrained.get_vocab()
        return cls(sorted(ids, key=ids.__getitem__))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a vocab.txt."""
        write_file(path, "".join(piece + "\n" for piece in self.pieces).encode())

    def encode(
        self, texts: Sequence[str], tokens: int
    ) -> tuple[Int32[np.ndarray, "n L"], Bool[np.ndarray, "n L"]]:
        """Tokenises texts to a fixed length: [CLS] pieces [SEP], cut or filled with [PAD].

        Args:
          texts: n texts.
          tokens: L, [CLS] and [SEP] included.

        Returns:
          Ids, and a mask that is True at all but the padding.

        Raises:
          VocabularyError: a text is no whole Unicode: a terminal's bytes that are not UTF-8, say.
        """
        for text in texts:
            if text != text.encode(errors="replace").decode():
                raise VocabularyError(f"text {text!r:.80} is not whole Unicode: give UTF-8")
        ids = np.full((len(texts), tokens), self._pad, np.int32)
        lengths = np.zeros(len(texts), np.int64)
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for row, encoding in enumerate(encodings):
            pieces = [self._start, *encoding.ids[: tokens - 2], self._end]
            ids[row, : len(pieces)] = pieces
            lengths[row] = len(pieces)
        return ids, np.arange(tokens) < lengths[:, None]


def _tokenizer(ids: dict[str, int]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(ids, unk_token="[UNK]", continuing_subword_prefix=_CONTINUES)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
