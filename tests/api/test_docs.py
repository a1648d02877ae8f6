"""The page that lists every route: complete, loads nothing from elsewhere, and escapes all our texts."""

from __future__ import annotations

import re

from coordinator.api.docs import page


async def test_it_lists_every_route_of_the_document_and_loads_only_our_files(api):
    answer = await api.client.get("/docs")
    assert answer.status_code == 200
    paths = (await api.get("/openapi.json"))["paths"]
    for path, operations in paths.items():
        for method in operations:
            assert f'<span class="method">{method.upper()}</span> <code>{path}</code>' in answer.text
    loaded = re.findall(r'(?:href|src)="([^"]+)"', answer.text)
    assert all(address.startswith("/") and not address.startswith("//") for address in loaded)
    for address in loaded:
        assert (await api.client.get(address)).status_code == 200, address
    assert "<script" not in answer.text


def test_texts_of_a_route_are_no_markup():
    operation = {
        "description": "<script>alert(1)</script>",
        "security": [{}],
        "parameters": [{"name": "<b>", "in": "query", "schema": {"default": "<i>"}}],
        "responses": {"200": {"description": "<u>"}},
    }
    text = page({"info": {"title": "<x>"}, "paths": {"/<p>": {"get": operation}}})
    for word in ("<script>", "<b>", "<i>", "<u>", "<x>", "/<p>"):
        assert word not in text
