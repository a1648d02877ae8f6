"""The contracts that a process of the node goes by: the ones that were applied, and the text on disk as a proposal.

A text does nothing until it is applied, except the first of a new crunch. A process that starts while the text is
broken, another one or gone goes on with what was applied: from its data directory, else from the log.
"""

from __future__ import annotations

import structlog

from coordinator.infra.contracts.archive import ArchiveFolder, pack, unpack
from coordinator.infra.contracts.loading import ContractShelf, load_contracts
from coordinator.infra.contracts.log import find_archive
from coordinator.infra.contracts.meaning import scoring_hash
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.events import ApplyContract, ApplyContractData, Terms
from coordinator.streams.log import ids
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

APPLY = "`coordinator contract diff` shows in what, `coordinator contract apply` applies it"

log = structlog.get_logger()


class NodeContracts:
    """`shelf` gives the contract of a hash.

    `proposed` is the hash of the text on disk; it is "" where `fault` says why it cannot be.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = ArchiveFolder(settings.data_dir)
        self.shelf = ContractShelf(self._find)
        self.proposed = ""
        self.fault: OperatorError | None = None
        try:
            self._read(load_contracts(settings.contract, kind=settings.feed_kind))
        except OperatorError as error:
            self.fault = error

    def _read(self, on_disk: ContractShelf) -> None:
        for contract in on_disk.contracts():
            self.shelf.put(contract)
        self.proposed = on_disk.current_hash

    def _find(self, contract_hash: str) -> CrunchContract | None:
        content = self.folder.get(contract_hash)
        if content is None:
            content = find_archive(self.settings.kafka_bootstrap, self.settings.crunch_id, contract_hash)
        if content is None:
            return None
        self.folder.put(contract_hash, content)
        log.info("contract_from_what_is_kept", contract=contract_hash[:12])
        return unpack(content, contract_hash)

    def apply_proposed(self, at: int) -> ApplyContract:
        """The command that applies the text on disk; `at` in ms. Raises OperatorError when that cannot be."""
        if self.fault is not None:
            raise self.fault
        self.terms_under(self.proposed)
        path = self.settings.contract.split(",")[-1].strip()
        content = pack(self.shelf(self.proposed), path)
        self.folder.put(self.proposed, content)
        data = ApplyContractData(contract_hash=self.proposed, path=path, archive=content)
        return ApplyContract(id=ids.content_id("cmd", "apply", self.proposed, str(at)), at=at, data=data)

    def terms_of(self, command: ApplyContract) -> Terms:
        """The terms of a contract that is applied, kept from here on. Raises OperatorError, ContractError."""
        contract_hash, content = command.data.contract_hash, bytes(command.data.archive)
        unpack(content, contract_hash)  # the bytes that will be kept, also where the text on disk is the same
        self.folder.put(contract_hash, content)
        return self.terms_under(contract_hash)

    def terms_under(self, contract_hash: str) -> Terms:
        """The terms of a kept contract with the settings of now. Raises OperatorError."""
        contract = self.shelf(contract_hash)
        return make_terms(contract, contract_hash, self.settings, 0, scoring_hash=scoring_hash(contract))

    def remark(self, applied: str) -> str:
        """What to tell the operator about the text on disk, beside the contract that was applied; "" for nothing."""
        if self.fault is not None:
            return f"going on with the applied contract {applied[:12]}, since the text on disk is broken: {self.fault}"
        if self.proposed != applied:
            return (
                f"going on with the applied contract {applied[:12]}; the text on disk is another, "
                f"{self.proposed[:12]}: {APPLY}"
            )
        return ""
