"""Between text and token ids of an OpenVINO GenAI model folder."""

from collections.abc import Sequence
from typing import Any

from ...schemas.completion import ChatMessage

KNOWN_WINDOWS_MAX = 65_536
"""Decoded token windows that are remembered."""
LITERAL_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""Tags that must survive in the text even where a tokenizer calls them special."""


class Codec:
    """An `openvino_genai.Tokenizer`, with the folder's chat template. Used on the engine's thread only."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises ValueError when the tokenizer has no chat template."""
        if not tokenizer.chat_template:
            raise ValueError("it has no chat template (chat_template.jinja, or one inside the tokenizer)")
        self.tokenizer = tokenizer
        self.literal: dict[int, str] = {}
        """Tokens of the tags that plain decoding would drop."""
        self._texts: dict[tuple[int, ...], str] = {}
        for tag in LITERAL_TAGS:
            ids = [int(token) for token in tokenizer.encode(tag, add_special_tokens=False).input_ids.data[0]]
            if len(ids) == 1 and self.decode(ids) != tag:
                self.literal[ids[0]] = tag

    def prompt(self, messages: Sequence[ChatMessage]) -> Any:
        """Return the tensor of token ids, of shape [1, tokens], of a conversation under the chat template."""
        history = [{"role": message.role, "content": _clean(message.content)} for message in messages]
        text = self.tokenizer.apply_chat_template(history, True)
        return self.tokenizer.encode(text, add_special_tokens=False).input_ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of one sequence, special tokens left out."""
        return self.decode_many([ids])[0]

    def decode_many(self, windows: list[list[int]]) -> list[str]:
        """Decode windows of a few tokens, all new ones in one call; a small vocabulary repeats them all the time."""
        keys = [tuple(window) for window in windows]
        unknown = list({key for key in keys if key and key not in self._texts})
        if unknown:
            if len(self._texts) + len(unknown) > KNOWN_WINDOWS_MAX:
                self._texts.clear()
                unknown = list({key for key in keys if key})
            texts = self.tokenizer.decode([list(key) for key in unknown], skip_special_tokens=True)
            self._texts.update(zip(unknown, texts, strict=True))
        return [self._texts[key] if key else "" for key in keys]


def _clean(text: str) -> str:
    """Replace lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
