"""The vocabulary of a run that starts from known weights is that of the weights."""

import json
import pathlib
import shutil

import pytest

from trainer.configs.overrides import override
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot
from trainer.data.tokenizer import Tokenizer, VocabularyError
from trainer.data.tokenizer_settings import SPECIAL, Settings
from trainer.runs import run_folder
from trainer.runs.run_folder import Origin, RunError
from trainer.training.initialization import Start

TOKENISERS = pathlib.Path(__file__).parents[2] / "data" / "transformers"


@pytest.fixture
def known(tmp_path):
    """A folder of text weights with a cased vocabulary."""
    folder = tmp_path / "known"
    folder.mkdir()
    pieces = [*SPECIAL, "[unused0]", "A", "ring", "Disc"]
    Tokenizer(pieces, Settings(lowercase=False)).save(folder / "vocab.txt")
    return folder


def listed(path, pieces):
    path.write_text("".join(f"{piece}\n" for piece in pieces))
    return path


@pytest.mark.parametrize("version", ["4.44.2", "4.57.6", "5.8.1", "5.18.0", "5.24.0"])
def test_text_weights_bring_the_tokenizer_that_their_version_wrote(version):
    folder = TOKENISERS / version / "tokenisers" / "cased-BertTokenizer"
    tokenizer = Start(text=folder).tokenizer()
    assert tokenizer is not None and tokenizer.settings == Settings(lowercase=False)


def test_a_given_vocabulary_has_the_settings_of_the_encoder(known, tmp_path):
    given = listed(tmp_path / "mine.txt", [*SPECIAL, "[unused0]", "A", "ring", "Disc"])
    tokenizer = Start(text=known).tokenizer(given)
    assert tokenizer is not None and not tokenizer.settings.lowercase


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        (["[unused0]", "ring", "A", "Disc"], "line 7 is 'ring', but 'A' there"),
        (["[unused0]", "A", "ring"], "line 9 is absent, but 'Disc' there"),
        (["A", "ring", "Disc"], "line 7 is 'ring', but 'A' there"),
        (["[unused0]", "A", "ring", "Disc", "mug"], None),
        (["mug", "A", "ring", "Disc"], None),
    ],
)
def test_a_vocabulary_must_have_the_encoders_ids(known, tmp_path, pieces, told):
    given = listed(tmp_path / "mine.txt", [*SPECIAL, *pieces])
    if told is None:
        assert Start(text=known).tokenizer(given)
        return
    with pytest.raises(VocabularyError) as caught:
        Start(text=known).tokenizer(given)
    assert told in str(caught.value)


def test_a_vocabulary_must_have_the_encoders_settings(known, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(known, folder)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    with pytest.raises(VocabularyError, match="lowercase is True, but False there"):
        Start(text=known).tokenizer(folder / "vocab.txt")


def test_rows_of_added_tokens_have_a_meaning(tmp_path):
    folder = TOKENISERS / "5.24.0" / "tokenisers" / "added-BertTokenizer"
    pieces = list(Tokenizer.from_vocabulary(folder).vocabulary)
    with pytest.raises(VocabularyError, match=r"is absent, but '<cat>' there"):
        Start(text=folder).tokenizer(listed(tmp_path / "mine.txt", pieces))


@pytest.fixture
def started(tmp_path, small_config, write_snapshot):
    """Start a run with one tokenizer and resume it with another."""
    clips = Mixture([Snapshot.open(write_snapshot(clips=8).folder)])
    config = override(small_config, ["text.vocabulary=30"])
    origin = Origin({}, {}, {})

    def start(tokenizer, checkpoint=False):
        if checkpoint:
            (tmp_path / "run" / "checkpoints" / "4").mkdir(parents=True)
        run_folder.start_or_continue(tmp_path / "run", config, clips, tokenizer, origin, steps=4)
        return tmp_path / "run"

    return start


def test_a_run_keeps_the_settings_of_its_tokenizer(started):
    pieces = [*SPECIAL, "A", "ring", "a"]
    cased = Tokenizer(pieces, Settings(lowercase=False))
    run = started(cased)
    assert run_folder.read(run)[1].difference(cased) is None
    with pytest.raises(RunError, match=r"another vocabulary .* lowercase is False, but True"):
        started(Tokenizer(pieces), checkpoint=True)
    with pytest.raises(RunError, match=r"another vocabulary .* line 6 is 'A', but 'ring'"):
        started(Tokenizer([*SPECIAL, "ring", "A", "a"], Settings(lowercase=False)))


def test_a_run_of_an_earlier_release_is_lower_cased(started):
    pieces = [*SPECIAL, "A", "ring", "a"]
    run = started(Tokenizer(pieces))
    (run / "tokenizer_config.json").unlink()
    assert run_folder.read(run)[1].settings == Settings()
    known = Start(run=run).tokenizer()
    assert known is not None and known.settings.lowercase


def test_a_runs_settings_that_are_damaged(started):
    run = started(Tokenizer([*SPECIAL, "a"]))
    (run / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": "no"}))
    with pytest.raises(VocabularyError, match=r"tokenizer_config\.json: do_lower_case is 'no'"):
        run_folder.read(run)
