"""The events of a streamed response as OpenAI's Responses API sends them, in its order, built from the SDK's types."""

from collections.abc import Iterator
from typing import Any

from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseError,
    ResponseErrorEvent,
    ResponseFailedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseFunctionToolCall,
    ResponseIncompleteEvent,
    ResponseInProgressEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
    ResponseUsage,
)
from openai.types.responses.response import IncompleteDetails


class Events:
    """One response, event by event."""

    def __init__(self) -> None:
        self.number = -1
        self.items: list[Any] = []
        self.words = ""
        """Of the message that is being written."""
        self.writing = False

    def begin(self) -> Iterator[Any]:
        yield ResponseCreatedEvent(
            response=self.response("in_progress"), sequence_number=self.next(), type="response.created"
        )
        yield ResponseInProgressEvent(
            response=self.response("in_progress"), sequence_number=self.next(), type="response.in_progress"
        )

    def text(self, delta: str) -> Iterator[Any]:
        index = len(self.items)
        if not self.writing:
            self.writing = True
            yield ResponseOutputItemAddedEvent(
                item=self.message("in_progress"),
                output_index=index,
                sequence_number=self.next(),
                type="response.output_item.added",
            )
            yield ResponseContentPartAddedEvent(
                content_index=0,
                item_id="msg_1",
                output_index=index,
                part=ResponseOutputText(annotations=[], text="", type="output_text"),
                sequence_number=self.next(),
                type="response.content_part.added",
            )
        self.words += delta
        yield ResponseTextDeltaEvent(
            content_index=0,
            delta=delta,
            item_id="msg_1",
            logprobs=[],
            output_index=index,
            sequence_number=self.next(),
            type="response.output_text.delta",
        )

    def call(self, name: str, arguments: str, call_id: str) -> Iterator[Any]:
        """Its arguments in small pieces."""
        yield from self.message_done()
        index = len(self.items)
        begun = ResponseFunctionToolCall(
            id=f"fc_{index}", call_id=call_id, name=name, arguments="", type="function_call", status="in_progress"
        )
        yield ResponseOutputItemAddedEvent(
            item=begun, output_index=index, sequence_number=self.next(), type="response.output_item.added"
        )
        for at in range(0, len(arguments), 4):
            yield ResponseFunctionCallArgumentsDeltaEvent(
                delta=arguments[at : at + 4],
                item_id=f"fc_{index}",
                output_index=index,
                sequence_number=self.next(),
                type="response.function_call_arguments.delta",
            )
        yield ResponseFunctionCallArgumentsDoneEvent(
            arguments=arguments,
            item_id=f"fc_{index}",
            output_index=index,
            sequence_number=self.next(),
            type="response.function_call_arguments.done",
        )
        done = begun.model_copy(update={"arguments": arguments, "status": "completed"})
        self.items.append(done)
        yield ResponseOutputItemDoneEvent(
            item=done, output_index=index, sequence_number=self.next(), type="response.output_item.done"
        )

    def end(self, usage: tuple[int, int] | None, *, complete: bool) -> Iterator[Any]:
        yield from self.message_done()
        if complete:
            yield ResponseCompletedEvent(
                response=self.response("completed", usage), sequence_number=self.next(), type="response.completed"
            )
        else:
            response = self.response("incomplete", usage)
            response.incomplete_details = IncompleteDetails(reason="max_output_tokens")
            yield ResponseIncompleteEvent(response=response, sequence_number=self.next(), type="response.incomplete")

    def failed(self, code: str, message: str) -> Iterator[Any]:
        response = self.response("failed")
        response.error = ResponseError.construct(code=code, message=message)
        yield ResponseFailedEvent(response=response, sequence_number=self.next(), type="response.failed")

    def error(self, code: str, message: str) -> Iterator[Any]:
        yield ResponseErrorEvent(code=code, message=message, sequence_number=self.next(), type="error")

    def message_done(self) -> Iterator[Any]:
        if not self.writing:
            return
        self.writing = False
        index = len(self.items)
        yield ResponseTextDoneEvent(
            content_index=0,
            item_id="msg_1",
            logprobs=[],
            output_index=index,
            sequence_number=self.next(),
            text=self.words,
            type="response.output_text.done",
        )
        done = self.message("completed")
        yield ResponseContentPartDoneEvent(
            content_index=0,
            item_id="msg_1",
            output_index=index,
            part=done.content[0],
            sequence_number=self.next(),
            type="response.content_part.done",
        )
        self.items.append(done)
        yield ResponseOutputItemDoneEvent(
            item=done, output_index=index, sequence_number=self.next(), type="response.output_item.done"
        )

    def message(self, status: Any) -> ResponseOutputMessage:
        text = [ResponseOutputText(annotations=[], text=self.words, type="output_text")] if self.words else []
        return ResponseOutputMessage(id="msg_1", content=list(text), role="assistant", status=status, type="message")

    def response(self, status: Any, usage: tuple[int, int] | None = None) -> Response:
        return Response(
            id="resp_1",
            created_at=1763800000.0,
            model="fake",
            object="response",
            output=list(self.items),
            parallel_tool_calls=True,
            status=status,
            tool_choice="auto",
            tools=[],
            usage=None if usage is None else self.usage(*usage),
        )

    def usage(self, tokens_in: int, tokens_out: int) -> ResponseUsage:
        return ResponseUsage.model_validate(
            {
                "input_tokens": tokens_in,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": tokens_out,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": tokens_in + tokens_out,
            }
        )

    def next(self) -> int:
        self.number += 1
        return self.number
