"""The tables of docs/agent-script.md and docs/models.md, from the keys:
`python -m trunkline.agents.script.reference FILE` writes them."""

import re
import sys
from pathlib import Path
from typing import Any

from trunkline.agents.llm import openai
from trunkline.agents.llm import remote as llm_remote
from trunkline.agents.realtime import openai as realtime_openai
from trunkline.agents.remote import detector as turn_remote
from trunkline.agents.remote.options import WHERE
from trunkline.agents.script import keys
from trunkline.agents.script.keys import Key, Keys
from trunkline.agents.stt import deepgram as stt_deepgram
from trunkline.agents.stt import remote as stt_remote
from trunkline.agents.stt import sherpa as stt_sherpa
from trunkline.agents.tts import deepgram as tts_deepgram
from trunkline.agents.tts import elevenlabs as tts_elevenlabs
from trunkline.agents.tts import openai as tts_openai
from trunkline.agents.tts import remote as tts_remote
from trunkline.agents.tts import sherpa as tts_sherpa

TABLES: dict[str, Keys] = {
    "file": keys.FILE,
    "turns": keys.TURNS,
    "failover": keys.FAILOVER,
    "targets": keys.TARGET,
    "agents": keys.AGENT,
    "context": keys.CONTEXT,
    "hours": keys.HOURS,
    "intents": keys.INTENT,
    "slots": keys.SLOT,
    "digits": keys.DIGITS,
    "tools": keys.TOOL,
    "fallback": keys.FALLBACK,
    "words": keys.WORDS,
    "language": keys.LANGUAGE,
    "openai": openai.OPTIONS,
    "realtime": keys.REALTIME,
    "realtime_openai": realtime_openai.OPTIONS,
}
MODELS: dict[str, Keys] = {
    "stt_deepgram": stt_deepgram.OPTIONS,
    "tts_deepgram": tts_deepgram.OPTIONS,
    "tts_elevenlabs": tts_elevenlabs.OPTIONS,
    "tts_openai": tts_openai.OPTIONS,
    "stt_remote": {**WHERE, **stt_remote.DEADLINES},
    "llm_remote": {**WHERE, **llm_remote.DEADLINES},
    "tts_remote": {**WHERE, **tts_remote.DEADLINES},
    "turn_remote": {**WHERE, **turn_remote.DEADLINES},
    "stt_sherpa": stt_sherpa.OPTIONS,
    "tts_sherpa": tts_sherpa.OPTIONS,
}
"""Those of docs/models.md."""

_PLACE = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SHOWN_CHARACTERS = 70


def table(keys: Keys) -> str:
    rows = ["| key | value | without it |", "|---|---|---|"]
    rows += [f"| `{name}` | {_meaning(key)} | {_default(key)} |" for name, key in keys.items()]
    return "\n".join(rows) + "\n"


def with_tables(text: str) -> str:
    """`text` with every table between `<!-- keys: NAME -->` and `<!-- end -->` written anew."""
    return _PLACE.sub(lambda match: match[1] + table((TABLES | MODELS)[match[2]]) + match[3], text)


def _meaning(key: Key) -> str:
    limits = f" {key.low} to {key.high}." if key.kind == "whole" else ""
    choices = f" One of {', '.join(f'`{choice}`' for choice in key.choices)}." if key.choices else ""
    return (key.meaning + limits + choices).replace("|", "\\|")


def _default(key: Key) -> str:
    if key.required:
        return "**must be given**"
    value: Any = key.default
    if isinstance(value, tuple):
        shown = " / ".join(str(each) for each in value)
    elif isinstance(value, bool):
        shown = str(value).lower()
    else:
        shown = "" if value is None or value == {} else str(value)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS].rsplit(" ", 1)[0] + " ..."
    return shown.replace("|", "\\|") or "-"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(with_tables(file.read_text(encoding="utf-8")), encoding="utf-8")
