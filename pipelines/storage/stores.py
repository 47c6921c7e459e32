"""The two kinds of object stores: Google Cloud Storage and S3, accessed with gcsfs and s3fs.

Both libraries are file systems of fsspec, so `bucket` reads, uploads and copies through one
interface. fsspec has no interface for conditional writes and listings in pages, and it asks twice
for a missing object. A Store has these operations, and explains the errors of its library.

Credentials and the server come from the environment variables and files that all clients of the
store read, such as STORAGE_EMULATOR_HOST and AWS_ENDPOINT_URL. No message contains credentials.
"""

import abc
import errno
import functools
import json
import os
import re
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

NEW = "0"  # generation of an object that does not exist


class Object(NamedTuple):
    """The metadata of an existing object."""

    bytes: int
    generation: str  # changes with each write of another content


class Page(NamedTuple):
    """A part of a listing."""

    objects: list[tuple[str, int]]  # (name, bytes)
    next: str | None  # token of the next page, None after the last


class Store(abc.ABC):
    """The operations of an object store that differ between stores."""

    files: Any  # the fsspec file system
    upload_options: ClassVar[Mapping[str, Any]]  # arguments of `files.put_file`

    @abc.abstractmethod
    def stat(self, bucket: str, name: str) -> Object:
        """Return an object's size and generation, by one request."""

    @abc.abstractmethod
    def page(self, bucket: str, prefix: str, most: int, token: str | None, *, flat: bool) -> Page:
        """List the objects with a prefix.

        Args:
          bucket: the bucket.
          prefix: prefix of the objects' names.
          most: maximum number of objects in the page.
          token: token of the page, None for the first.
          flat: leave out objects with a slash after the prefix.
        """

    @abc.abstractmethod
    def write(self, bucket: str, name: str, data: bytes, generation: str | None) -> str:
        """Write an object in one request and return its generation.

        Raises:
          FileExistsError: the object's generation is not the given one.
        """

    @abc.abstractmethod
    def delete(self, bucket: str, name: str, generation: str | None) -> None:
        """Delete an object.

        Raises:
          OSError: the object's generation is not the given one.
        """

    @abc.abstractmethod
    def explained(self, error: Exception, path: str) -> OSError:
        """Convert an exception of the library to an OSError with the errno and filename of it."""


@functools.cache
def store(scheme: str) -> Store:
    """Return the store of a scheme, "gs://" or "s3://"."""
    return STORES[scheme]()


class Google(Store):
    """Google Cloud Storage."""

    upload_options: ClassVar[Mapping[str, Any]] = {
        "content_type": "application/octet-stream",
        "consistency": "md5",
    }

    def __init__(self) -> None:
        # Otherwise gcsfs first queries whether a bucket needs another protocol. With an emulator
        # that does not know the query, this takes a minute.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        import gcsfs

        self.files = gcsfs.GCSFileSystem(use_listings_cache=False)

    def stat(self, bucket: str, name: str) -> Object:
        """Query the metadata of an object."""
        found = self.files.call("GET", "b/{}/o/{}", bucket, name, json_out=True)
        return Object(int(found["size"]), found["generation"])

    def page(self, bucket: str, prefix: str, most: int, token: str | None, *, flat: bool) -> Page:
        """List names and sizes alone: gcsfs requests 20 times as much data."""
        found = self.files.call(
            "GET",
            "b/{}/o",
            bucket,
            prefix=prefix,
            pageToken=token,
            maxResults=most,
            fields="nextPageToken,items(name,size)",
            json_out=True,
            **({"delimiter": "/"} if flat else {}),
        )
        objects = [(item["name"], int(item["size"])) for item in found.get("items", ())]
        return Page(objects, found.get("nextPageToken"))

    def write(self, bucket: str, name: str, data: bytes, generation: str | None) -> str:
        """Write by a multipart request, which alone returns the generation."""
        separator = uuid.uuid4().hex  # The fixed separator of gcsfs might occur in annotations.
        parts = (
            (b"application/json", json.dumps({"name": name}).encode()),
            (b"application/octet-stream", data),
        )
        body = b"".join(
            b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (separator.encode(), kind, part)
            for kind, part in parts
        )
        written = self.files.call(
            "POST",
            self.files.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o",
            bucket,
            uploadType="multipart",
            ifGenerationMatch=generation,
            headers={"Content-Type": f"multipart/related; boundary={separator}"},
            data=body + b"--%s--" % separator.encode(),
            json_out=True,
        )
        return written["generation"]

    def delete(self, bucket: str, name: str, generation: str | None) -> None:
        """Delete on the condition of ifGenerationMatch."""
        self.files.call("DELETE", "b/{}/o/{}", bucket, name, ifGenerationMatch=generation)

    def explained(self, error: Exception, path: str) -> OSError:
        """Explain errors of gcsfs, aiohttp, requests and google-auth."""
        import aiohttp
        import google.auth.exceptions
        import requests

        if isinstance(error, google.auth.exceptions.GoogleAuthError):
            return self._no_credentials(error, path)
        if isinstance(error, (aiohttp.ClientError, requests.RequestException, TimeoutError)):
            return _unreachable(error, path)
        if isinstance(error, OSError):
            return _denied(error, path)
        if str(getattr(error, "code", "")) == "401":  # gcsfs's HttpError has no usable base class.
            return self._no_credentials(error, path)
        return _answered(error, path)

    def _no_credentials(self, error: Exception, path: str) -> OSError:
        return _no_credentials(
            error,
            path,
            "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
        )


class S3(Store):
    """Amazon S3, or another store with its protocol."""

    upload_options: ClassVar[Mapping[str, Any]] = {"ContentType": "application/octet-stream"}

    def __init__(self) -> None:
        import s3fs

        # Several workers upload at once: one part of 50 MB each in memory. A read is one request.
        self.files = s3fs.S3FileSystem(use_listings_cache=False, max_concurrency=1)

    def stat(self, bucket: str, name: str) -> Object:
        """Send a HEAD request."""
        found = self.files.call_s3("head_object", Bucket=bucket, Key=name)
        return Object(found["ContentLength"], found["ETag"])

    def page(self, bucket: str, prefix: str, most: int, token: str | None, *, flat: bool) -> Page:
        """List by version 2 of the request."""
        found = self.files.call_s3(
            "list_objects_v2",
            Bucket=bucket,
            Prefix=prefix,
            MaxKeys=most,
            **({"ContinuationToken": token} if token else {}),
            **({"Delimiter": "/"} if flat else {}),
        )
        objects = [(item["Key"], item["Size"]) for item in found.get("Contents", ())]
        return Page(objects, found.get("NextContinuationToken"))

    def write(self, bucket: str, name: str, data: bytes, generation: str | None) -> str:
        """Write by a conditional PUT request: If-None-Match creates, If-Match replaces."""
        condition = {}
        if generation is not None:
            condition = {"IfNoneMatch": "*"} if generation == NEW else {"IfMatch": generation}
        try:
            written = self.files.call_s3(
                "put_object",
                Bucket=bucket,
                Key=name,
                Body=data,
                ContentType="application/octet-stream",
                **condition,
            )
        except OSError as error:
            if _code(error) in _CONFLICTS or (condition and _code(error) == "NoSuchKey"):
                raise FileExistsError from error
            raise
        return written["ETag"]

    def delete(self, bucket: str, name: str, generation: str | None) -> None:
        """Delete on the condition of If-Match."""
        condition = {} if generation is None else {"IfMatch": generation}
        self.files.call_s3("delete_object", Bucket=bucket, Key=name, **condition)

    def explained(self, error: Exception, path: str) -> OSError:
        """Explain errors of s3fs, aiohttp and botocore."""
        import aiohttp
        import botocore.exceptions as botocore

        if isinstance(
            error,
            (
                botocore.NoCredentialsError,
                botocore.PartialCredentialsError,
                botocore.CredentialRetrievalError,
                botocore.ProfileNotFound,
            ),
        ):
            why = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            return _no_credentials(error, path, why)
        unreachable = (
            botocore.ConnectionError,
            botocore.HTTPClientError,
            aiohttp.ClientError,
            TimeoutError,
        )
        if isinstance(error, unreachable):
            return _unreachable(error, path)
        return (_denied if isinstance(error, PermissionError) else _answered)(error, path)


STORES: Mapping[str, type[Store]] = {"gs://": Google, "s3://": S3}

_CONFLICTS = {"PreconditionFailed", "ConditionalRequestConflict", "412"}  # codes of S3


def _code(error: OSError) -> str:
    """Return S3's code of an error that s3fs has converted."""
    return getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", "")


def _no_credentials(error: Exception, path: str, hint: str) -> OSError:
    why = f"no valid credentials ({_reason(error)}): {hint}"
    return PermissionError(errno.EACCES, why, path)


def _unreachable(error: Exception, path: str) -> OSError:
    lines = _lines(error)
    return ConnectionError(errno.EHOSTUNREACH, f"cannot be reached ({lines[0][:200]})", path)


def _denied(error: Exception, path: str) -> OSError:
    return PermissionError(errno.EACCES, f"access denied ({_reason(error)})", path)


def _answered(error: Exception, path: str) -> OSError:
    return OSError(errno.EIO, f"the store answered: {_reason(error)}", path)


def _reason(error: Exception) -> str:
    """Return the last line of a message: the server's answer. The first may be a URL."""
    return _lines(error)[-1][:200]


def _lines(error: Exception) -> list[str]:
    """Return the lines of a message, without user names and passwords in URLs.

    >>> _lines(ValueError("cannot connect to https://me:secret@store.example/a"))
    ['cannot connect to https://store.example/a']
    """
    said = str(error.args[-1]) if type(error) is OSError else str(error)
    return re.sub(r"//[^/@\s]*@", "//", said).strip().splitlines() or [type(error).__name__]
