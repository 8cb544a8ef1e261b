"""To whom a transfer goes, and how: the agent's `[targets]` and what was asked for, as `Transfer` takes them."""

from dataclasses import replace

from trunkline.agents.definition import AgentDefinition, TransferTerms
from trunkline.gateway.transfer_record import Kind, Policy, Target, named_target
from trunkline.ports import Refuse


def targets_of(
    definition: AgentDefinition, name: str, kind: Kind, said_last: str, summary: str = ""
) -> tuple[Target, ...] | Refuse:
    """The target of this name and its fallbacks. `kind` and `summary` as asked for, for all of them: without (auto,
    empty), each has its own. `said_last`: the summary where nobody wrote one."""
    found = []
    for one in definition.chain(name):
        target = named_target(definition.targets, one)
        if isinstance(target, Refuse):
            return target
        terms = definition.terms_of(one)
        chosen = terms.kind if kind == "auto" else kind
        policy = _policy(terms, chosen, summary or terms.summary or said_last)
        found.append(replace(target, kind=chosen, policy=policy))
    return tuple(found)


def _policy(terms: TransferTerms, kind: Kind, summary: str) -> Policy:
    policy = Policy(
        summary=summary,
        waiting="music" if kind in ("warm", "attended") else "ringback",
        after_target=terms.after_target,
        ring_s=terms.ring_s,
        detect_voicemail=terms.detect_voicemail,
    )
    return replace(policy, prompt=terms.prompt) if terms.prompt else policy
