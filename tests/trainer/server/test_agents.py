import base64
import io

import anyio
import pytest
from mcp import Client
from mcp_types import ImageContent, TextContent
from PIL import Image

from trainer.server import agents


def call(service, tool, **arguments):
    async def ask():
        async with Client(agents.create(service)) as client:
            return await client.call_tool(tool, arguments)

    return anyio.run(ask)


def test_the_tools_describe_their_arguments(service):
    async def ask():
        async with Client(agents.create(service)) as client:
            return await client.list_tools()

    tools = {tool.name: tool for tool in anyio.run(ask).tools}
    assert set(tools) == {"search_clips", "locate_nouns", "show_clip"}
    assert all(tool.description for tool in tools.values())
    assert "without" in str(tools["search_clips"].input_schema)


def test_an_agent_finds_a_clip_and_sees_it(service, library):
    found = call(service, "search_clips", query={"text": ["a red ring"], "size": 3})
    results = found.structured_content["results"]
    (vector,) = library.index.encoder.texts(["a red ring"])
    expected = [hit.row for hit in library.index.search(like=vector, top=3)]
    assert not found.is_error and [one["number"] for one in results] == expected
    shown = call(service, "show_clip", number=expected[0])
    (content,) = shown.content
    assert isinstance(content, ImageContent)
    film = Image.open(io.BytesIO(base64.b64decode(content.data)))
    assert film.size == (4 * 48, 32)
    located = call(service, "locate_nouns", number=expected[0], query={"noun": ["red ring"]})
    assert located.structured_content["nouns"][0]["noun"] == "red ring"


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("search_clips", {"query": {}}, "give a text"),
        ("search_clips", {"query": {"text": ["a" * 501]}}, "500"),
        ("show_clip", {"number": 30}, "does not exist"),
        ("show_clip", {"number": -1}, "greater than or equal"),
    ],
)
def test_a_wrong_call_is_answered_with_its_fault(service, tool, arguments, message):
    answer = call(service, tool, **arguments)
    (content,) = answer.content
    assert isinstance(content, TextContent)
    assert answer.is_error and message in content.text
