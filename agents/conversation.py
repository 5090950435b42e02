"""Conversations as prompts: splitting off the problem, bounding lengths, taking out what only an engine may write."""

import re
from collections.abc import Sequence

from ..schemas.completion import ChatMessage

CUT_MARK = "\n[… cut …]\n"
HISTORY_CHARS_MAX = 24_000
PROBLEM_CHARS_MAX = 48_000

_ROLE_TOKENS = re.compile(
    r"""<[|\uff5c][^<>|\uff5c\s]{1,40}[|\uff5c]>         # <|im_start|>, <|eot_id|>, fullwidth bars too
      | \[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS)\]
      | <</?SYS>>
      | </?(?:think|thinking|start_of_turn|end_of_turn|bos|eos|s)>""",
    re.IGNORECASE | re.VERBOSE,
)


def split_problem(messages: Sequence[ChatMessage]) -> tuple[str, tuple[ChatMessage, ...], str]:
    """Return the caller's own system text, the turns before the problem, and the problem (the last turn).

    System and developer turns are gathered into one text, because many chat templates accept only one, in front.
    """
    *before, problem = messages
    system = "\n\n".join(turn.content for turn in before if turn.role in ("system", "developer"))
    history = tuple(turn for turn in before if turn.role in ("user", "assistant"))
    return system, history, problem.content


def transcript(system: str, history: Sequence[ChatMessage], *, limit: int = HISTORY_CHARS_MAX) -> str:
    """Return earlier turns as plain text of at most about `limit` characters; empty when there are none."""
    turns = [f"[instructions]\n{system}"] if system else []
    turns += [f"[{turn.role}]\n{turn.content}" for turn in history]
    return cut_middle(without_role_tokens("\n\n".join(turns)), limit)


def cut_middle(text: str, limit: int) -> str:
    """Return `text` with its middle replaced by a mark where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    room = max(limit - len(CUT_MARK), 2)
    head = (room + 1) // 2
    return text[:head] + CUT_MARK + text[len(text) - (room - head) :]


def without_role_tokens(text: str) -> str:
    """Return `text` with a space for each token that separates turns or reasoning in any common chat format.

    A space, not nothing, so that what surrounds a removed token cannot close up to another one.
    """
    return _ROLE_TOKENS.sub(" ", text)
