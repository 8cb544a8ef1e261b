"""What providers tell of their use is what their invoices count."""

from types import SimpleNamespace

import msgspec

from trunkline.agents.invoiced import product_of
from trunkline.agents.llm import openai_chat, openai_responses
from trunkline.agents.realtime.openai_wire import Usage
from trunkline.agents.stt.deepgram import read_options
from trunkline.ports import HERE, LlmUsage, RealtimeUsage, TranscriptionUsage


def test_cached_tokens_of_both_apis_are_told_apart() -> None:
    chat, responses = openai_chat.Answer(), openai_responses.Answer()
    details = {"cached_tokens": 1024}
    chat.take({"usage": {"prompt_tokens": 1500, "completion_tokens": 20, "prompt_tokens_details": details}})
    used = {"input_tokens": 1500, "output_tokens": 20, "input_tokens_details": details}
    responses.take({"type": "response.completed", "response": {"usage": used}})
    assert chat.usage == responses.usage == LlmUsage(1500, 20, 1024)


def test_more_cached_tokens_than_there_are_or_none_that_is_a_number() -> None:
    for cached, read in ((9999, 10), (-1, 0), ("many", 0), (None, 0)):
        chat = openai_chat.Answer()
        details = {"cached_tokens": cached}
        chat.take({"usage": {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": details}})
        assert chat.usage == LlmUsage(10, 1, read)


def test_a_realtime_reply_tells_what_was_cached_of_text_and_of_audio() -> None:
    told = {
        "input_tokens": 500,
        "output_tokens": 80,
        "input_token_details": {
            "text_tokens": 100,
            "audio_tokens": 400,
            "cached_tokens": 384,
            "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 320},
        },
        "output_token_details": {"text_tokens": 20, "audio_tokens": 60},
    }
    assert msgspec.convert(told, Usage).read() == RealtimeUsage(100, 20, 400, 60, 64, 320)


def test_a_transcription_is_billed_by_seconds_or_by_tokens() -> None:
    by_time = msgspec.convert({"type": "duration", "seconds": 1.5}, Usage)
    assert by_time.of_transcription("whisper-1") == TranscriptionUsage("whisper-1", 1.5)
    told = {"type": "tokens", "input_tokens": 14, "output_tokens": 5}
    told |= {"input_token_details": {"text_tokens": 4, "audio_tokens": 10}}
    by_tokens = msgspec.convert(told, Usage).of_transcription("gpt-4o-transcribe")
    assert by_tokens == TranscriptionUsage("gpt-4o-transcribe", 0.0, 4, 10, 5)


def test_deepgram_is_dearer_in_several_languages_and_opted_out() -> None:
    products = [
        read_options(options, heard).product
        for options, heard in (
            ({}, ("en",)),
            ({}, ("en", "es")),
            ({"opt_out": True}, ("en",)),
        )
    ]
    assert products == ["nova-3", "nova-3-multilingual", "opt-out-nova-3"]


def test_what_runs_here_is_nobodys_product() -> None:
    assert product_of(SimpleNamespace(third_party=False, product="llama")) == HERE
    assert product_of(SimpleNamespace(third_party=True, product="gpt-4.1")) == "gpt-4.1"
