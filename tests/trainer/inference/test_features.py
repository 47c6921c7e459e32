import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from trainer.cli.main import main
from trainer.configs.overrides import override
from trainer.data.snapshot import Snapshot
from trainer.inference import features, shards
from trainer.inference.encoder import Encoder, embed_clips
from trainer.runs import checkpoint


@pytest.fixture(scope="module")
def written(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return write_snapshot_at(folder, clips=10, height=18, width=24)


@pytest.fixture
def embed(untrained_run, written, tmp_path):
    def run(*arguments):
        return main(
            [
                *("embed", f"--run={untrained_run}", f"--snapshot={written.folder}"),
                *(f"--out={tmp_path / 'features'}", "--shard-clips=4", *arguments),
            ]
        )

    return run


def test_shards_have_the_features_and_say_of_which_clips(
    embed, untrained_run, written, tmp_path, capsys
):
    assert embed() == 0
    assert "parameters of step 0" in capsys.readouterr().err
    folder = tmp_path / "features"
    manifest = json.loads((folder / "features.json").read_text())
    assert manifest["format"] == "svilm-features/1"
    assert manifest["features"] == {"clip": [16], "groups": [16], "windows": [2, 16]}
    assert [shard["clips"] for shard in manifest["shards"]] == [4, 4, 2]
    assert {path.name for path in folder.iterdir()} == {
        "features.json", *(shard["name"] for shard in manifest["shards"])
    }  # fmt: skip

    run = checkpoint.load(untrained_run)
    encoder = Encoder(run.config, run.tokenizer, run.params)
    _, expected = embed_clips(Snapshot.open(written.folder), encoder, lambda *_: None)
    shards = [folder / shard["name"] for shard in manifest["shards"]]
    tensors = [safetensors.numpy.load_file(shard) for shard in shards]
    for name, values in (
        ("clip", expected.clip), ("groups", expected.pooled), ("windows", expected.windows)
    ):  # fmt: skip
        np.testing.assert_allclose(
            np.concatenate([shard[name] for shard in tensors]), values, atol=1e-6
        )
    rows = []
    for shard in shards:
        with safetensors.safe_open(shard, "numpy") as file:
            assert json.loads(file.metadata()["made_from"]) == manifest["made_from"]
            rows += json.loads(file.metadata()["clips"])
    assert rows == [
        {"clip_id": c.clip_id, "video_id": c.video_id, "start_us": c.start_us, "end_us": c.end_us}
        for c in written.clips
    ]


def test_a_random_encoder_has_other_features(embed, tmp_path, capsys):
    assert embed("--feature=groups", "--random-encoder") == 0
    made_from = json.loads((tmp_path / "features" / "features.json").read_text())["made_from"]
    assert embed("--feature=groups") == 1
    assert "was made with another parameters_sha256" in capsys.readouterr().err
    assert made_from["features"] == ["groups"]


def test_processes_share_the_shards_and_keep_existing_ones(embed, tmp_path, capsys):
    folder = tmp_path / "features"
    assert embed("--feature=clip", "--process=1", "--processes=2") == 0
    assert "others are not" in capsys.readouterr().out
    (second,) = folder.glob("*.safetensors")
    assert second.name == "features-00001-of-00003.safetensors"
    before = second.stat().st_mtime_ns
    assert embed("--feature=clip") == 0
    assert second.stat().st_mtime_ns == before
    assert len(list(folder.glob("*.safetensors"))) == 3
    assert (folder / "features.json").exists()

    assert embed("--feature=windows") == 1
    assert "was made with another features: give another --out" in capsys.readouterr().err
    second.write_bytes(b"{")
    assert embed("--feature=clip") == 1
    assert "features-00001-of-00003.safetensors is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--process=2", "--processes=2"], "--process 2 of --processes 2: give 0 … 1"),
        (["--videos=videos"], "argument --videos: not allowed with argument --snapshot"),
    ],
)
def test_wrong_usage(embed, arguments, message, capsys):
    assert embed(*arguments) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_folder_without_videos(untrained_run, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "notes.txt").touch()
    arguments = [f"--run={untrained_run}", f"--videos={tmp_path / 'videos'}"]
    assert main(["embed", *arguments, f"--out={tmp_path / 'out'}"]) == 1
    assert "has no video: no file named *.mp4, *.mkv" in capsys.readouterr().err


def test_a_command_that_failed_keeps_no_other_out(embed, tmp_path, capsys, monkeypatch):
    out, save = tmp_path / "features", shards.safetensors_file.save
    saved = []

    def full(tensors, path, metadata):
        if saved:
            raise OSError(28, "No space left on device", str(path))
        save(tensors, path, metadata)
        saved.append(path)

    monkeypatch.setattr(shards.safetensors_file, "save", full)
    assert embed("--feature=clip") == 1
    assert "No space left" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["features-00000-of-00003.safetensors"]
    assert embed("--feature=groups") == 1  # the shard keeps it out, and no claim
    assert "was made with another features" in capsys.readouterr().err
    for shard in out.iterdir():
        shard.unlink()
    assert embed("--feature=clip") == 1
    assert not list(out.iterdir())
    monkeypatch.undo()
    assert embed("--feature=groups") == 0


def test_a_claim_that_goes_away_is_made_anew(tmp_path, monkeypatch):
    """The file disappears between the check and the read."""
    claim, read = tmp_path / ".made_from.json", pathlib.Path.read_text
    claim.write_text('{"of": "another"}')

    def gone(path, **options):
        path.unlink(missing_ok=True)
        return read(path, **options)

    monkeypatch.setattr(pathlib.Path, "read_text", gone)
    assert shards._claim(claim, {"of": "this"}, "svilm-train embed")
    assert claim.read_bytes() == b'{"of": "this"}'


def test_two_commands_do_not_mix_their_features_in_a_folder(embed, tmp_path, capsys):
    """Either process may be the one without a first shard."""
    out = tmp_path / "features"
    assert embed("--feature=clip", "--processes=2", "--process=0") == 0
    for shard in out.glob("*.safetensors"):
        shard.unlink()
    before = sorted(out.iterdir())
    assert embed("--feature=groups", "--processes=2", "--process=0") == 1
    assert f"is writing other features to {out}: give another --out" in capsys.readouterr().err
    assert sorted(out.iterdir()) == before
    assert embed("--feature=clip") == 0
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert embed("--feature=groups") == 1
    assert "was made with another features" in capsys.readouterr().err
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_features_of_another_version_are_not_continued(written, untrained_run, tmp_path):
    """A later version may have more records of the same videos."""
    run, later = checkpoint.load(untrained_run), tmp_path / "later"
    shutil.copytree(written.folder, later)
    manifest = json.loads((later / "manifest.json").read_text())
    manifest["data_version"] = "9.0.0"
    (later / "manifest.json").write_text(json.dumps(manifest))

    def write(folder):
        snapshot, out = Snapshot.open(folder), tmp_path / "features"
        return features.write(run, snapshot, out, ("clip",), lambda *_: None)

    assert write(written.folder)
    assert write(written.folder)
    with pytest.raises(features.FeaturesError, match="was made with another manifest_sha256"):
        write(later)


def test_features_of_another_configuration_are_not_continued(written, untrained_run, tmp_path):
    """The parameters are equal, so the other settings are compared."""
    run, snapshot = checkpoint.load(untrained_run), Snapshot.open(written.folder)

    def write(run):
        return features.write(run, snapshot, tmp_path / "features", ("clip",), lambda *_: None)

    assert write(run)
    for settings in (["video.norm_eps=0.5"], ["video.pixel_mean=0.1,0.2,0.3"]):
        other = run._replace(config=override(run.config, settings))
        with pytest.raises(features.FeaturesError, match="was made with another settings_sha256"):
            write(other)
    assert write(run._replace(config=override(run.config, ["optimizer.learning_rate=0.5"])))

    # Features of earlier releases lack the hash and are continued.
    (shard,) = (tmp_path / "features").glob("*.safetensors")
    tensors = safetensors.numpy.load_file(shard)
    with safetensors.safe_open(shard, "numpy") as file:
        metadata = file.metadata()
    made_from = json.loads(metadata["made_from"])
    assert len(made_from.pop("settings_sha256")) == 64
    metadata["made_from"] = json.dumps(made_from)
    safetensors.numpy.save_file(tensors, shard, metadata=metadata)
    before = shard.read_bytes()
    (tmp_path / "features" / ".made_from.json").write_text(json.dumps(made_from))
    assert write(run)
    assert shard.read_bytes() == before
