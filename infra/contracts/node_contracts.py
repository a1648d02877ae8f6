"""The contracts that a process of the node uses: those that were applied, and the one on disk as a proposal.

The contract on disk has no effect until it is applied, except for the first of a new crunch. If it is broken, changed
or missing when a process starts, the process uses the applied contract: from the data directory, else from the log.
"""

from __future__ import annotations

import structlog

from coordinator.infra.contracts.archive import ArchiveFolder, pack, unpack
from coordinator.infra.contracts.from_log import find_archive
from coordinator.infra.contracts.loading import ContractShelf, load_contracts
from coordinator.infra.contracts.meaning import scoring_hash
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.term_settings import (
    settings_differ,
    settings_of,
    term_settings,
    with_term_settings,
)
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.events import ApplyContract, ApplyContractData, Terms, TermSettings
from coordinator.streams.log import ids
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

APPLY = "`coordinator contract diff` shows the differences, `coordinator contract apply` applies it"

log = structlog.get_logger()


class NodeContracts:
    """`shelf` returns the contract of a hash.

    `proposed` is the hash of the contract on disk; it is "" if that contract cannot be loaded, and then `fault` says
    why.
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

    def apply_proposed(self, at: int, told: TermSettings | None) -> ApplyContract:
        """The command that applies the contract on disk, with the settings `told`, or (None) with those that hold; `at`
        in ms. Raises OperatorError if it cannot be applied.
        """
        if self.fault is not None:
            raise self.fault
        self.terms_under(self.proposed, told)
        path = self.settings.contract.split(",")[-1].strip()
        content = pack(self.shelf(self.proposed), path)
        self.folder.put(self.proposed, content)
        data = ApplyContractData(contract_hash=self.proposed, path=path, archive=content, settings=told)
        return ApplyContract(id=ids.content_id("cmd", "apply", self.proposed, str(at)), at=at, data=data)

    def terms_of(self, command: ApplyContract, held: Terms | None = None) -> Terms:
        """The terms of the contract that a command applies; stores its archive. Raises OperatorError, ContractError.

        They are made with the command's settings; with those of the terms `held` if it names none.
        """
        contract_hash, content = command.data.contract_hash, bytes(command.data.archive)
        unpack(
            content, contract_hash
        )  # checks the bytes to be stored, even if the contract is loaded already
        self.folder.put(contract_hash, content)
        return self.terms_under(
            contract_hash, command.data.settings or (None if held is None else settings_of(held))
        )

    def terms_under(self, contract_hash: str, told: TermSettings | None) -> Terms:
        """The terms of a contract on the shelf with these settings, or with the node's own. Raises OperatorError."""
        contract = self.shelf(contract_hash)
        settings = self.settings if told is None else with_term_settings(self.settings, told)
        return make_terms(contract, contract_hash, settings, 0, scoring_hash=scoring_hash(contract))

    def settings_remark(self, held: Terms) -> str:
        """What to tell the operator if the node's settings are not those of the terms that hold; "" if they are."""
        differ = settings_differ(settings_of(held), term_settings(self.settings))
        if not differ:
            return ""
        return (
            f"the rules in force go on with their own settings; those of this start are others ({'; '.join(differ)}): "
            "`coordinator contract apply` with them in the environment or `.env` applies them"
        )

    def remark(self, applied: str) -> str:
        """What to tell the operator if the contract on disk is not the applied one; "" if it is."""
        if self.fault is not None:
            return (
                f"using the applied contract {applied[:12]}, because the text on disk is broken: {self.fault}"
            )
        if self.proposed != applied:
            return (
                f"using the applied contract {applied[:12]}; the text on disk is another, "
                f"{self.proposed[:12]}: {APPLY}"
            )
        return ""
