"""Whose runs, records and GPUs are: what a user's record may not claim."""

from __future__ import annotations

import os
import pwd
from collections import defaultdict
from collections.abc import Sequence

import duckdb

from flows.errors import BadInput
from flows.files import name_for_people
from flows.sources.runs import records
from flows.sources.runs.record_files import Origin, RecordFile
from flows.warehouse.frames import query_rows
from transforms.constants import NO_GPU


class Owners:
    """What the warehouse knows of hosts, records and runs, and what is loaded beside it."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._hosts: dict[str, str] = dict(
            con.execute(
                "SELECT gpu_uuid, host FROM gpu WHERE model IS DISTINCT FROM $none",
                {"none": NO_GPU},
            ).fetchall()
        )
        self._records: dict[str, tuple[str, Origin | None, str]] = {}
        """Record -> its run, who wrote it (None: an older version does not say), and its file."""
        self._withdrawn: dict[str, dict[str, str]] = defaultdict(dict)
        """Record of root -> records of users that it contradicts, with a sentence on each."""
        self._by_run: dict[str, set[str]] = defaultdict(set)
        self._run_owners: dict[str, str | None] = dict(
            con.execute(
                "SELECT run_id, owner FROM training_run WHERE superseded_at IS NULL"
            ).fetchall()
        )
        for row in query_rows(con, "FROM run_record ORDER BY loaded_at, record_id"):
            uid = row["owner_uid"]
            origin = None if uid is None else Origin(uid, row["is_vouched"], row["host"])
            self._remember(row["record_id"], row["run_id"], origin, row["source_name"])
        self.withdrawn = self._find_contradicted()
        """Records of users that count no more: root says that the run is another's."""

    def _find_contradicted(self) -> set[str]:
        """Stored records of users whose runs are another's, by the word of root."""
        found: set[str] = set()
        for run_id in self._by_run:
            origins = [(key, self._records[key][1]) for key in self._by_run[run_id]]
            told = {one.owner_uid for _, one in origins if one is not None and one.is_vouched}
            told -= {0, os.geteuid()}
            found |= {
                key
                for key, one in origins
                if one is not None and not one.is_vouched and told and one.owner_uid not in told
            }
        for key in found:
            self._by_run[self._records[key][0]].discard(key)
        return found

    def _remember(self, record_id: str, run_id: str, origin: Origin | None, source: str) -> None:
        self._records[record_id] = (run_id, origin, source)
        self._by_run[run_id].add(record_id)

    def refuse_foreign(self, file: RecordFile) -> None:
        """Refuse a record that claims what is another's; else what it claims is its owner's from now on.

        Raises:
            BadInput: it claims a GPU of another host, or the record or run of another user.
        """
        record, origin = file.record, file.origin
        reason = records.find_foreign_gpu(record, self._hosts, is_vouched=origin.is_vouched)
        if not reason and not origin.is_vouched:
            reason = self._find_foreign_record(file) or self._find_foreign_run(file)
        if reason:
            raise BadInput(
                reason,
                where=name_for_people(file.path),
                remedy="If the GPU was moved, correct its host in the registry; else the record is another "
                "host's, or copied"
                if "GPU" in reason
                else "The first one stands. Records of root (a prolog's) say whose a run is",
            )
        for held in record.gpus:
            self._hosts.setdefault(held.gpu_uuid, record.host)
        if origin.is_vouched:
            self._overrule(file)
        self._remember(record.record_id, record.run_id, origin, name_for_people(file.path))

    def _overrule(self, file: RecordFile) -> None:
        """Withdraw what users claimed of a record or run of which root, or the operator, now says whose it is."""
        record, claimed = file.record, file.origin.owner_uid
        others = self._by_run[record.run_id] if record.owner_uid is not None else set()
        for record_id in sorted({*others, record.record_id}):
            run_id, origin, source = self._records.get(record_id, ("", None, ""))
            if origin is None or origin.is_vouched or origin.owner_uid == claimed:
                continue
            self._withdrawn[record.record_id][record_id] = (
                f"the record {record_id} of user {origin.owner_uid} ({source}) claimed what is user {claimed}'s "
                f"(run {run_id}): it is withdrawn"
            )
            self._by_run[run_id].discard(record_id)
            if record_id != record.record_id:
                self.withdrawn.add(record_id)

    def _find_foreign_record(self, file: RecordFile) -> str:
        """Why a user's record cannot take the place of a stored one; empty where it can."""
        record = file.record
        if record.record_id not in self._records:
            return ""
        _, origin, source = self._records[record.record_id]
        is_same = (
            origin.owner_uid == file.origin.owner_uid and origin.host in ("", record.host)
            if origin is not None
            else source == name_for_people(file.path)
        )
        if is_same:
            return ""
        whose = f"user {origin.owner_uid}" if origin is not None else "an unknown user"
        return f"it would replace the record {record.record_id} of {whose} ({source})"

    def _find_foreign_run(self, file: RecordFile) -> str:
        """Why a user's record cannot belong to the run that it names; empty where it can."""
        run_id, uid = file.record.run_id, file.origin.owner_uid
        for record_id in sorted(self._by_run[run_id]):
            _, origin, source = self._records[record_id]
            if origin is not None and origin.owner_uid != uid:
                return f"run {run_id} is that of user {origin.owner_uid} ({source})"
        if (
            run_id in self._run_owners
            and not self._by_run[run_id]
            and not is_user(uid, self._run_owners[run_id])
        ):
            return (
                f"run {run_id} is known from elsewhere, of {self._run_owners[run_id] or 'nobody named'}, "
                f"and user {uid} is not known here by that name"
            )
        return ""

    def explain_withdrawn(self, files: Sequence[RecordFile]) -> list[str]:
        """A sentence on each record of a user that some records of root contradict."""
        return [
            sentence
            for file in files
            for sentence in self._withdrawn[file.record.record_id].values()
        ]

    def may_replace(self, run_id: str, files: Sequence[RecordFile], by: str) -> bool:
        """Whether records of a run may take the place of a run that accounting tells."""
        return all(
            file.origin.is_vouched or is_user(file.origin.owner_uid, self._run_owners.get(run_id))
            for file in files
            if file.record.run_id == by
        )


def is_user(uid: int, name: str | None) -> bool:
    """Whether a name is that of a user, as far as this machine knows its users."""
    try:
        return pwd.getpwuid(uid).pw_name == name
    except (KeyError, OverflowError):
        return False
