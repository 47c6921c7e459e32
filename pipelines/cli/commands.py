"""Commands that read finished snapshots, with lazy imports to keep --help instant."""

import argparse
import shlex

from pipelines.errors import ExitCode, UserError
from pipelines.formatting import format_counts
from pipelines.messages import warn

PROGRAM = "svilm-pipelines"


class UsageError(UserError):
    """A usage error, with a one-line reason."""

    exit_code = ExitCode.MISUSED


class CommandError(UserError):
    """A failed command, with a one-line message that says what to do."""


def file_error(error: OSError) -> str:
    """Return the message for a file, folder or object that cannot be read or written."""
    if error.filename is None:  # Some errors of streams name neither a file nor a number.
        return f"{error.strerror or error}: check that all files are readable and the disk has room"
    return f"{error.filename}: {error.strerror}: check that it exists, permits access and has room"


def _verify(arguments: argparse.Namespace) -> int:
    from pipelines.cli.progress import Progress
    from pipelines.snapshots import signing, split, verify

    if arguments.key:
        signing.verify(arguments.snapshot, arguments.key)
        print(f"verify: {arguments.snapshot} is signed by the owner of {arguments.key}")
    progress = Progress("verify", "shards")
    try:
        manifest = verify.read_manifest(arguments.snapshot)
        faults = verify.faults(arguments.snapshot, manifest, arguments.workers, progress.update)
    finally:
        progress.close()
    for fault in faults:
        print(fault)
    if faults:
        raise CommandError(
            f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'} in {arguments.snapshot!r}: "
            "build it again into another folder"
        )
    part = f" ({split.described(manifest.config.split)})" if manifest.config.split.part else ""
    print(f"verify: {arguments.snapshot}{part} is sound: {format_counts(manifest.counts)}")
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    from pipelines.snapshots import signing, verify

    verify.read_manifest(arguments.snapshot)
    print(f"sign: {signing.sign(arguments.snapshot, arguments.key)}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from pipelines.snapshots import records, snapshot, verify
    from pipelines.snapshots.card import page, strips, text
    from pipelines.storage import storage

    manifest = verify.read_manifest(arguments.snapshot)
    if arguments.records:
        places = records.find(arguments.snapshot, manifest, arguments.records)
    else:
        places = records.evenly_spaced(manifest, _FEW)
    entries = strips.entries(arguments.snapshot, manifest, places)
    if arguments.pictures:
        if arguments.pictures.endswith(".png"):
            data = strips.png(entries)
        else:
            data = page.contact_sheet(arguments.snapshot, manifest, entries).encode()
        snapshot.write_file(*storage.folder_and_name(arguments.pictures), data)
    for entry in entries:
        print("\n".join(text.lines(entry)))
    return 0


def _describe(arguments: argparse.Namespace) -> int:
    from pipelines.cli.progress import Progress
    from pipelines.snapshots import snapshot, verify
    from pipelines.snapshots.card import page
    from pipelines.storage import storage

    if arguments.out.endswith(".json"):
        return _describe_as_croissant(arguments)
    if arguments.license is not None:
        raise UsageError("--license requires an --out that ends with .json")
    progress = Progress("describe", "records")
    try:
        card = page.data_card(
            arguments.snapshot,
            verify.read_manifest(arguments.snapshot),
            clips=arguments.clips,
            records=arguments.records,
            name=arguments.name,
            progress=progress.update,
        )
    finally:
        progress.close()
    snapshot.write_file(*storage.folder_and_name(arguments.out), card.encode())
    print(f"describe: {arguments.snapshot} → {arguments.out}")
    return 0


def _describe_as_croissant(arguments: argparse.Namespace) -> int:
    from pipelines.snapshots import snapshot, verify
    from pipelines.snapshots.croissant import documents
    from pipelines.storage import storage

    manifest = verify.read_manifest(arguments.snapshot)
    about = documents.About(arguments.name, arguments.license)
    of, (folder, name) = (
        storage.absolute(arguments.snapshot),
        storage.folder_and_name(arguments.out),
    )
    if of == folder and name != documents.NAME:
        raise UsageError(f"--out {arguments.out!r} is in a snapshot: name it {documents.NAME}")
    if not f"{of}/".startswith(f"{folder.rstrip('/')}/"):
        raise UsageError(
            f"--out {arguments.out!r} has paths of the snapshot's files: write it into "
            f"{arguments.snapshot!r} or a folder above"
        )
    beginning = f"{of}/"[len(folder.rstrip("/")) + 1 :]
    document = documents.of_snapshot(arguments.snapshot, manifest, about, beginning)
    snapshot.write_file(folder, name, document)
    print(f"describe: {arguments.snapshot} → {arguments.out}")
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from pipelines.snapshots import diff, verify

    old, new = (verify.read_manifest(folder) for folder in (arguments.old, arguments.new))
    difference = diff.compare(arguments.old, old, arguments.new, new)
    for line in diff.lines(difference, maximum=arguments.most):
        print(line)
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    from pipelines.cli import tag_commands
    from pipelines.cli.progress import Progress
    from pipelines.planning import filters
    from pipelines.snapshots import exposed_runs, remove, verify
    from pipelines.sources import annotation_file
    from pipelines.sources.clip_request import RowError

    try:
        with annotation_file.spooled(arguments.videos) as files:
            video_ids = filters.read_ids(files)
    except RowError as error:
        raise CommandError(
            f"--videos is not a list of video ids: {error}: give text files with one id per line"
        ) from None
    manifest = verify.read_manifest(arguments.snapshot)
    version = arguments.data_version or remove.next_major(manifest.data_version)
    tag_commands.check(arguments, arguments.out, arguments.snapshot)
    progress = Progress("remove", "shards")
    try:
        done = remove.remove(
            arguments.snapshot,
            manifest,
            video_ids,
            arguments.out,
            version,
            workers=arguments.workers,
            progress=progress.update,
        )
    finally:
        progress.close()
    if done.unknown:
        named = ", ".join(map(repr, done.unknown[:_UNKNOWN]))
        more = f" and {len(done.unknown) - _UNKNOWN:,} more" if done.unknown[_UNKNOWN:] else ""
        warn(
            f"{PROGRAM}: warning: {len(done.unknown):,} videos are not in the snapshot: "
            f"{named}{more}: check that the ids are spelled as in its records"
        )
    print(
        f"remove: version {version} has {manifest.counts.records - done.records:,} records, "
        f"{done.records:,} fewer → {arguments.out}"
    )
    tag_commands.advance(arguments, arguments.out, arguments.snapshot)
    if arguments.runs:
        for run in exposed_runs.seen_by(arguments.runs, arguments.snapshot, manifest, video_ids):
            print(_of_run(run, arguments))
    return 0


def _of_run(found, arguments: argparse.Namespace) -> str:
    """Return the line for a run, with the command that lists its steps."""
    if found.unknown:
        return f"remove: {found.run} may have seen them ({found.unknown})"
    if not found.videos:
        return f"remove: {found.run} has seen none of them"
    named = ", ".join(found.videos[:_UNKNOWN])
    more = f" and {len(found.videos) - _UNKNOWN:,} more" if found.videos[_UNKNOWN:] else ""
    videos = shlex.join(f"--videos={path}" for path in arguments.videos)
    return (
        f"remove: {found.run} may have seen {len(found.videos):,} of them: {named}{more}: for the "
        f"steps, run svilm-train exposure --run {shlex.quote(found.run)} {videos}"
    )


def _export(arguments: argparse.Namespace) -> int:
    from pipelines.cli.progress import Progress
    from pipelines.snapshots import verify
    from pipelines.snapshots.croissant.documents import About
    from pipelines.snapshots.export import parquet, sequence_example, webdataset

    _check_export(arguments)
    manifests = [verify.read_manifest(folder) for folder in arguments.snapshots]
    about = About(arguments.name, arguments.license)
    progress = Progress("export", "shards")
    options = {"workers": arguments.workers, "progress": progress.update}
    (folder, *_), (manifest, *_), out = arguments.snapshots, manifests, arguments.out
    try:
        if arguments.format == "webdataset":
            webdataset.write(folder, manifest, out, about, **options)
        elif arguments.format == "sequence-example":
            sequence_example.write(folder, manifest, out, **options)
        else:
            names = arguments.split or [one.config.split.part or "train" for one in manifests]
            splits = zip(names, arguments.snapshots, manifests, strict=True)
            parquet.write([*map(parquet.Split._make, splits)], out, about, **options)
    finally:
        progress.close()
    samples = sum(manifest.counts.records for manifest in manifests)
    print(f"export: {samples:,} samples → {arguments.out}")
    return 0


def _check_export(arguments: argparse.Namespace) -> None:
    """Check the combination of options.

    Raises:
      UsageError: an option does not fit the format, or the number of snapshots.
    """
    snapshots, splits = len(arguments.snapshots), len(arguments.split)
    if arguments.format != "parquet" and snapshots > 1:
        raise UsageError(
            f"{snapshots} snapshots require --format parquet: export each into its own folder"
        )
    if splits and arguments.format != "parquet":
        raise UsageError("--split requires --format parquet")
    if splits not in (0, snapshots):
        raise UsageError(f"{splits} --split for {snapshots} snapshots: give one for each, in order")
    if arguments.format == "sequence-example" and (arguments.name or arguments.license):
        raise UsageError("--name and --license require --format webdataset or parquet")


def _doctor(arguments: argparse.Namespace) -> int:
    from pipelines.cli import doctor
    from pipelines.decoding.sandbox import fork_client

    missing = fork_client.missing_here()
    for line in doctor.lines(missing):
        print(line)
    return 3 if missing else 0


_FEW = 8  # records that `inspect` shows by default
_UNKNOWN = 20  # maximum number of unknown video ids in `remove`'s warning


COMMANDS = {
    "describe": _describe,
    "diff": _diff,
    "doctor": _doctor,
    "export": _export,
    "inspect": _inspect,
    "remove": _remove,
    "verify": _verify,
    "sign": _sign,
}
