"""Files: upload, list, read, delete (/v1/files)."""

import io
import os
from pathlib import Path
from typing import IO, BinaryIO

from ..schemas.batches import FileDeleted, FileList, FileObject, FilePurpose
from ..schemas.errors import GatewayUnreachable, InvalidRequest
from .exchange import Exchange, Patience, creating, given, segment
from .flow import Call, Emit, Flow, Items, Read, Upload, iteration, operation

PAGE = 100
UPLOAD_TIMEOUT_S = 300.0
"""Seconds that a gateway may take to answer an upload: it has the file on its disk by then."""


class Files(Exchange):
    """The methods of both clients that are about files. They raise what those about jobs do."""

    @operation
    def upload_file(
        self,
        file: str | os.PathLike[str] | bytes,
        *,
        filename: str | None = None,
        expires_after_s: int | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[FileObject]:
        """Upload the input of a batch: the path of a file of JSON lines, which is sent as it is read, or its content.

        `filename`: as it will be listed; None = the path's. `expires_after_s`: seconds until it is deleted, 3,600 to
        2,592,000; None = never. `idempotency_key`: as for `submit`. Raises InvalidRequest for what cannot be read.
        """
        fields = {"purpose": FilePurpose.batch.value}
        if expires_after_s is not None:
            fields |= {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(expires_after_s)}
        name = filename or ("batch.jsonl" if isinstance(file, bytes) else Path(file).name)

        def opened() -> BinaryIO:
            if isinstance(file, bytes):
                return io.BytesIO(file)
            try:
                return Path(file).open("rb")
            except OSError as exc:
                raise InvalidRequest(f"{file} cannot be read: {exc.strerror or exc}") from exc

        upload = Upload(name, opened, fields)
        call = creating("/v1/files", upload=upload, key=idempotency_key, read_timeout_s=UPLOAD_TIMEOUT_S)
        return (yield from self.ask_for(FileObject, call))

    @operation
    def get_file(self, file_id: str) -> Flow[FileObject]:
        """Return what is known of a file."""
        return (yield from self.ask_for(FileObject, Call("GET", f"/v1/files/{segment(file_id)}")))

    @iteration
    def list_files(self, *, purpose: FilePurpose | str | None = None, after: str | None = None) -> Items[FileObject]:
        """Iterate over the files, newest first, page by page; `after`: a file id, only those that follow it."""
        while True:
            query = given(purpose=purpose, after=after, limit=PAGE)
            page = yield from self.ask_for(FileList, Call("GET", "/v1/files", params=query))
            for file in page.data:
                yield Emit(file)
            if not page.has_more or page.last_id is None:
                return
            after = page.last_id

    @operation
    def file_content(self, file_id: str) -> Flow[bytes]:
        """Return a file's content, as a whole in memory."""
        pieces = io.BytesIO()
        yield from copy_content(self, file_id, pieces)
        return pieces.getvalue()

    @operation
    def download_file(self, file_id: str, path: str | os.PathLike[str]) -> Flow[None]:
        """Write a file's content to that path as it comes; nothing is there until it is complete. Raises OSError."""
        target = Path(path)
        part = target.with_name(f"{target.name}.part")
        try:
            with part.open("wb") as file:
                yield from copy_content(self, file_id, file)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    @operation
    def delete_file(self, file_id: str) -> Flow[FileDeleted]:
        """Delete a file. After GatewayUnreachable it may be there or not: a second try may raise NotFound."""
        call = Call("DELETE", f"/v1/files/{segment(file_id)}", repeatable=False)
        return (yield from self.ask_for(FileDeleted, call))


def copy_content(exchange: Exchange, file_id: str, target: IO[bytes]) -> Flow[None]:
    """Append a file's content, all of it again when the connection breaks. Raises what `Exchange.ask` does."""
    patience, start = Patience(exchange), target.tell()
    while True:
        target.seek(start)
        target.truncate()
        yield from exchange.ask(Call("GET", f"/v1/files/{segment(file_id)}/content"), stream=True)
        try:
            while True:
                piece: bytes = yield Read()
                if not piece:
                    return
                target.write(piece)
        except GatewayUnreachable as exc:
            yield from patience.pause(exc)
