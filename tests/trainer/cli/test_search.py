import json

import pytest
from PIL import Image

from trainer.cli.main import main


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    def annotate(clip, number):
        clip.labels.append("rises" if number % 2 else "falls")
        if number == 3:
            clip.caption = "Look:\n a \x1b[2J disc"

    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return write_snapshot_at(folder, clips=7, height=18, width=24, annotate=annotate).folder


@pytest.fixture(scope="module")
def index(untrained_run, snapshot, tmp_path_factory):
    out = tmp_path_factory.mktemp("indices") / "all"
    argv = [f"--run={untrained_run}", f"--snapshot={snapshot}", f"--out={out}"]
    assert main(["index", *argv, "--shard-clips=4"]) == 0
    return out


def test_processes_build_an_index_in_turn(untrained_run, snapshot, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["index", f"--run={untrained_run}", f"--snapshot={snapshot}", f"--out={out}"]
    argv += ["--shard-clips=4", "--vectors=int8"]
    assert main([*argv, "--processes=2", "--process=2"]) == 1
    assert not out.exists()
    assert main([*argv, "--processes=2", "--process=1"]) == 0
    assert "others are not" in capsys.readouterr().out
    assert main(["search", "ring", f"--index={out}"]) == 1
    assert "incomplete" in capsys.readouterr().err
    assert main(argv) == 0
    assert "7 clips of 3 videos, int8, exact" in capsys.readouterr().out
    assert main(["search", "ring", f"--index={out}"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_an_index_and_its_snapshot_give_the_same_clips(
    index, untrained_run, snapshot, tmp_path, capsys
):
    lines = []
    for place in f"--index={index}", f"--snapshot={snapshot}":
        argv = ["search", "red ring", f"--run={untrained_run}", place, "--top=7"]
        sheet = tmp_path / f"{len(lines)}.png"
        assert main([*argv, f"--out={sheet}", f"--json={tmp_path / 'found.json'}"]) == 0
        with Image.open(sheet) as image:
            assert image.height > 7 * 120
        shown = capsys.readouterr()
        lines.append([line.split() for line in shown.out.splitlines()])
        results = json.loads((tmp_path / "found.json").read_text())["results"]
        assert [one["clip_id"] for one in results] == [line[1] for line in lines[-1]]
        assert not any(letter in shown.out for letter in "\x1b\x00")
    assert [line[1:] for line in lines[0]] == [line[1:] for line in lines[1]]
    assert f"{snapshot} is embedded for this query alone" in shown.err
    assert "`svilm-train index`" in shown.err


def test_filters_pages_and_likeness(index, tmp_path, capsys):
    def found(*argv):
        path = tmp_path / "found.json"
        assert main(["search", *argv, f"--index={index}", f"--json={path}", "--top=4"]) == 0
        return [one["record"] for one in json.loads(path.read_text())["results"]]

    every = [*found("ring"), *found("ring", "--offset=4")]
    assert sorted(every) == list(range(7))
    assert found("ring", "--label=rises") == [record for record in every if record % 2]
    assert found("ring", "--video=video-00002", "--dataset=test") == [6]
    assert found("ring", "--length=1:") == []
    assert len(found("ring", "--each-video")) == 3
    like = found("--like=video-00000_0_900000", "--minus=ring")
    assert len(like) == 4 and 0 not in like
    assert len(found("ring", "star", "--min-score=-1")) == 4


def test_nouns_get_heat_maps(index, tmp_path, capsys):
    argv = ["search", "--noun=red ring", "--noun=disc", f"--index={index}", "--top=2"]
    path, heat = tmp_path / "found.json", tmp_path / "heat"
    assert main([*argv, f"--json={path}", f"--heat-maps={heat}"]) == 0
    (first, _) = json.loads(path.read_text())["results"]
    assert [noun for noun, _ in first["nouns"]] == ["red ring", "disc"]
    assert sorted(path.name for path in heat.iterdir()) == ["nouns-00001.png", "nouns-00002.png"]


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["ring"], 2, "one of the arguments --index --snapshot is required"),
        (["ring", "--snapshot=s"], 2, "--snapshot requires --run and one text"),
        (["a", "b", "--snapshot=s", "--run=r"], 2, "--snapshot requires --run and one text"),
        (["ring", "--snapshot=s", "--run=r", "--noun=a"], 2, "--noun applies only to --index"),
        (["ring", "--index={index}", "--span=1:2"], 2, "--span applies only to --like"),
        (["ring", "--index={index}", "--span=2:1"], 2, "is not START:END in seconds"),
        (["ring", "--index={index}", "--min-score=nan"], 2, "is not a cosine"),
        (["ring", "--index={index}", "--heat-maps=h"], 2, "--heat-maps applies only to --noun"),
        (["--index={index}"], 1, "the query is empty"),
        (["--index={index}", "--like=none"], 2, "neither a clip of the index nor a file"),
        (["ring", "--index={index}", "--label=no"], 1, "no label 'no': it has 'falls', 'rises'"),
        (["ring", "--index=gs://b/i"], 2, "is in a bucket"),
        (["ring", "--index={index}/none"], 1, "is not an index"),
    ],
)
def test_queries_that_cannot_be_answered(index, argv, status, message, capsys):
    assert main(["search", *(word.format(index=index) for word in argv)]) == status
    assert message in capsys.readouterr().err
