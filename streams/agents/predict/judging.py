"""Judges what the models of a round replied, and reports the models that keep failing."""

from __future__ import annotations

import msgspec

from coordinator.infra.blobs.answer_blobs import beside_the_log
from coordinator.streams.agents.predict.asking import Replies
from coordinator.streams.agents.predict.models_asked import ModelsAsked
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import InputReceivedData, RoundOpened
from coordinator.streams.ports import NO_ANSWER, Blobs, ModelReply, Outcome
from coordinator.streams.predictions.replies import Answers, holding_nothing, judge
from coordinator.streams.predictions.stage import NODE_LATE


class Judging:
    """Makes answers of replies, and counts the bad answers of each model in a row."""

    def __init__(self, asked: ModelsAsked, contracts: Contracts, blobs: Blobs | None) -> None:
        self._gateway, self._strikes = asked.gateway, asked.strikes
        self._holding = holding_nothing if asked.in_hand is None else asked.in_hand.holding
        self._contracts, self._blobs = contracts, blobs

    def answers(
        self, data: InputReceivedData, opened: RoundOpened, replies: Replies, *, late: bool
    ) -> Answers:
        """scope_key -> the answers of these models, in the order of the roster. `late`: the node itself was late.

        Blocking: a large answer takes some ms, and goes into the store.
        """
        others = {entry.model_id for entry in opened.data.roster} - replies.keys()
        contract = self._contracts(data.contract_hash)
        judged = {
            scope.scope_key: judge(
                opened,
                {
                    model_id: self._excused(of_model[scope.scope_key], late=late)
                    for model_id, of_model in replies.items()
                },
                contract.output_type,
                contract.output_max_bytes,
                but=others,
                holding=self._holding,
            )
            for scope in data.scopes
        }
        return {key: beside_the_log(entries, self._blobs) for key, entries in judged.items()}

    def _excused(self, reply: ModelReply, *, late: bool) -> ModelReply:
        """The reply, by the node's fault if the node itself was late or no orchestrator answers."""
        if late and reply.outcome is Outcome.OK:
            return msgspec.structs.replace(
                reply, outcome=Outcome.ABSENT, fault="node", output=None, detail=NODE_LATE
            )
        if reply.outcome in NO_ANSWER and not self._gateway.connected:
            detail = f"no orchestrator: {reply.detail}"
            return msgspec.structs.replace(reply, outcome=Outcome.ABSENT, fault="node", detail=detail)
        return reply

    async def report(self, data: InputReceivedData, answers: Answers) -> None:
        """Report to the orchestrator the models that keep failing. It stops them, and answers with a notice."""
        strikes_max = self._contracts(data.contract_hash).model_strikes_max
        for strike in self._strikes.note(answers, strikes_max, may_quote=data.question is None):
            if await self._gateway.report_failure(strike.model_id, strike.code, strike.reason):
                self._strikes.reported(strike.model_id)
