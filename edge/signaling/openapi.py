"""``/openapi.json``: these endpoints as an OpenAPI 3.1 document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

__all__ = ["document", "serve"]

_ERROR = {"$ref": "#/components/schemas/Error"}
_SESSION = {"$ref": "#/components/schemas/Session"}
_TEXT = {"type": "string"}
_MODEL = {"type": "string", "maxLength": 128, "pattern": "^[!-~]*$"}
_LOCKED = {"type": "array", "maxItems": 32, "items": {"type": "string", "pattern": "^[a-z_]{1,32}$"}}
_INTENT = {"enum": ["conversation", "realtime"]}
_WHY = {
    400: "The request cannot be understood",
    401: "No valid key",
    403: "The key does not allow this",
    408: "The body has not come in time",
    404: "No such model or call",
    409: "The call cannot have that model now",
    412: "If-Match names an ICE session of the past",
    413: "The body is too large",
    415: "The body is of another type",
    417: "Expect has more in it than 100-continue",
    422: "ICE restarts are not supported",
    426: "Only for WebSockets",
    428: "If-Match is missing",
    429: "The key has as many calls as it may",
    431: "The headers are too large",
    500: "A fault of this edge",
    502: "The transceiver refused for a reason of its own",
    503: "No transceiver answers, or all are full",
    504: "The model was not ready in time",
}


def _answers(*codes: int, **good: dict[str, Any]) -> dict[str, Any]:
    """The responses of an operation: ``_200=...`` for success, and the errors, all of one shape."""
    answers = {name.removeprefix("_"): response for name, response in good.items()}
    for code in sorted({*codes, 400, 417, 431, 500}):
        answers[str(code)] = {"description": _WHY[code], "content": {"application/json": {"schema": _ERROR}}}
        if code in (429, 503):
            answers[str(code)]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return answers


def _query(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _path(name: str, schema: Mapping[str, Any] = _TEXT) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _placed(*headers: str) -> dict[str, Any]:
    return {
        "description": "The SDP answer",
        "headers": {name: {"schema": _TEXT} for name in ("Location", *headers)},
        "content": {"application/sdp": {"schema": _TEXT}},
    }


def _ending(operation: str) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": "End a call",
        "parameters": [_path("call_id")],
        "responses": _answers(401, 404, 502, 503, _200=_OVER),
    }


_OVER = {"description": "The call is over"}
_SDP_BODY = {"required": True, "content": {"application/sdp": {"schema": _TEXT}}}
_MULTIPART = {
    "schema": {"type": "object", "required": ["sdp"], "properties": {"sdp": _TEXT, "session": _SESSION}},
    "encoding": {"sdp": {"contentType": "application/sdp"}, "session": {"contentType": "application/json"}},
}
_PATHS: dict[str, Any] = {
    "/v1/realtime/client_secrets": {
        "post": {
            "operationId": "createClientSecret",
            "summary": "Make an ephemeral key",
            "requestBody": {
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ClientSecretRequest"}}}
            },
            "responses": _answers(
                401,
                404,
                408,
                413,
                415,
                _200={
                    "description": "The ephemeral key",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ClientSecret"}}},
                },
            ),
        }
    },
    "/v1/realtime/calls": {
        "get": {
            "operationId": "listCalls",
            "summary": "firsthop's own: the calls on the key's account; not with an ephemeral key",
            "parameters": [_query("model", _MODEL, "only those of this model")],
            "responses": _answers(
                401,
                _200={
                    "description": "Those at the transceivers that have calls of this edge",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/CallList"}}},
                },
            ),
        },
        "post": {
            "operationId": "createCall",
            "summary": "Place a call over WebRTC",
            "parameters": [
                _query("model", _MODEL, "the agent; without, the ephemeral key's or the configuration's"),
                _query(
                    "dcid",
                    {"type": "integer", "minimum": 0, "maximum": 65534},
                    "the event channel's id, if negotiated",
                ),
                _query("intent", _INTENT, "sessions that only transcribe are not served"),
            ],
            "requestBody": {
                "required": True,
                "content": {"application/sdp": {"schema": _TEXT}, "multipart/form-data": _MULTIPART},
            },
            "responses": _answers(401, 403, 404, 408, 413, 415, 429, 502, 503, _201=_placed()),
        },
    },
    "/v1/realtime/calls/{call_id}/handoff": {
        "post": {
            "operationId": "handOffCall",
            "summary": "firsthop's own: give a call another model, which is warmed first; not with an ephemeral key",
            "parameters": [_path("call_id")],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["model"],
                            "properties": {"model": {**_MODEL, "minLength": 1}},
                        }
                    }
                },
            },
            "responses": _answers(
                401,
                404,
                408,
                409,
                413,
                415,
                502,
                503,
                504,
                _200={
                    "description": "That model has the call",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Call"}}},
                },
            ),
        }
    },
    "/v1/realtime/calls/{call_id}/hangup": {
        "post": _ending("hangUpCall"),
    },
    "/v1/realtime/calls/{call_id}": {
        "delete": _ending("deleteCall"),
    },
    "/v1/realtime": {
        "get": {
            "operationId": "connect",
            "summary": "Open a WebSocket: a session over it, or the events of a call",
            "description": "A key may come as a subprotocol, `openai-insecure-api-key.<key>` beside `realtime`.",
            "parameters": [
                _query("model", _MODEL, "the agent of a new session"),
                _query("call_id", _TEXT, "the call whose events are wanted; not with an ephemeral key"),
                _query("intent", _INTENT, "sessions that only transcribe are not served"),
            ],
            "responses": _answers(
                401, 403, 404, 426, 429, 502, 503, _101={"description": "Realtime API events as text, both ways"}
            ),
        }
    },
    "/v1/ice-servers": {
        "get": {
            "operationId": "listIceServers",
            "summary": "firsthop's own: STUN and TURN servers, with credentials made for who asks",
            "responses": _answers(
                401,
                429,
                _200={
                    "description": "What a page gives to RTCPeerConnection",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/IceServers"}}},
                },
            ),
        }
    },
    "/whip/{model}": {
        "post": {
            "operationId": "whipPost",
            "summary": "Place a call as WHIP clients do (RFC 9725)",
            "parameters": [_path("model", {**_MODEL, "minLength": 1})],
            "requestBody": _SDP_BODY,
            "responses": _answers(401, 403, 404, 408, 413, 415, 429, 502, 503, _201=_placed("ETag", "Link")),
        },
        "options": {
            "operationId": "whipOptions",
            "summary": "What may be posted, and with a key the ICE servers",
            "security": [{}, {"bearer": []}],
            "parameters": [_path("model", {**_MODEL, "minLength": 1})],
            "responses": {
                "204": {
                    "description": "Accept-Post tells",
                    "headers": {"Accept-Post": {"schema": _TEXT}, "Link": {"schema": _TEXT}},
                },
                **_answers(401, 429),
            },
        },
    },
    "/whip/{model}/{call_id}": {
        "patch": {
            "operationId": "whipPatch",
            "summary": "Trickled candidates, which are acknowledged and not needed, or an ICE restart",
            "parameters": [
                _path("model", {**_MODEL, "minLength": 1}),
                _path("call_id"),
                {"name": "If-Match", "in": "header", "required": False, "schema": _TEXT},
            ],
            "requestBody": {"required": True, "content": {"application/trickle-ice-sdpfrag": {"schema": _TEXT}}},
            "responses": _answers(
                401,
                404,
                408,
                412,
                413,
                415,
                428,
                502,
                503,
                _200={
                    "description": "ICE restarts with these credentials",
                    "headers": {"ETag": {"schema": _TEXT}},
                    "content": {"application/trickle-ice-sdpfrag": {"schema": _TEXT}},
                },
                _204={"description": "Taken"},
            ),
        },
        "delete": {
            "operationId": "whipDelete",
            "summary": "End a call",
            "parameters": [_path("model", {**_MODEL, "minLength": 1}), _path("call_id")],
            "responses": _answers(401, 404, 502, 503, _200=_OVER),
        },
    },
    "/healthz": {
        "get": {
            "operationId": "alive",
            "summary": "This process runs",
            "security": [],
            "responses": {"200": {"description": "It does", "content": {"text/plain": {"schema": _TEXT}}}},
        }
    },
    "/readyz": {
        "get": {
            "operationId": "ready",
            "summary": "A call placed now would find a transceiver",
            "security": [],
            "responses": {
                code: {"description": what, "content": {"application/json": {"schema": {"type": "object"}}}}
                for code, what in (("200", "It would"), ("503", "It would not"))
            },
        }
    },
}
_SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "additionalProperties": False,
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "code", "param"],
                "additionalProperties": False,
                "properties": {
                    "message": {"type": "string", "minLength": 1},
                    "type": {"enum": ["invalid_request_error", "requests", "server_error"]},
                    "code": {"type": ["string", "null"]},
                    "param": {"type": ["string", "null"]},
                },
            }
        },
    },
    "Call": {
        "type": "object",
        "required": ["object", "id", "model"],
        "properties": {"object": {"const": "realtime.call"}, "id": _TEXT, "model": _MODEL},
    },
    "CallList": {
        "type": "object",
        "required": ["object", "data", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Call"}},
            "has_more": {"type": "boolean", "description": "whether some are missing"},
        },
    },
    "IceServers": {
        "type": "object",
        "required": ["iceServers"],
        "properties": {
            "iceServers": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["urls"],
                    "properties": {
                        "urls": {"type": "array", "minItems": 1, "items": _TEXT},
                        "username": _TEXT,
                        "credential": _TEXT,
                    },
                },
            },
            "ttl": {"type": "integer", "description": "seconds for which the credentials are good"},
        },
    },
    "Session": {
        "type": "object",
        "description": "The Realtime API's session configuration. The transceiver judges what is not named here.",
        "properties": {"type": {"const": "realtime"}, "model": _MODEL},
    },
    "ClientSecretRequest": {
        "type": "object",
        "properties": {
            "expires_after": {
                "type": ["object", "null"],
                "properties": {
                    "anchor": {"const": "created_at"},
                    "seconds": {"type": "integer", "minimum": 10, "maximum": 7200, "default": 600},
                },
            },
            "session": {"anyOf": [_SESSION, {"type": "null"}]},
            "locked": {
                "description": "firsthop's own: parts of the session that the holder neither sees nor replaces, or all",
                "anyOf": [{"type": ["boolean", "null"]}, _LOCKED],
            },
        },
    },
    "ClientSecret": {
        "type": "object",
        "required": ["value", "expires_at", "session"],
        "properties": {
            "value": {"type": "string", "pattern": "^ek_"},
            "expires_at": {"type": "integer", "description": "seconds since 1970"},
            "session": _SESSION,
            "locked": _LOCKED,
        },
    },
}


def document() -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "firsthop", "version": "1", "description": "The OpenAI Realtime API, self-hosted."},
        "security": [{"bearer": []}],
        "paths": _PATHS,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": _SCHEMAS,
        },
    }


async def serve(_: web.Request) -> web.Response:
    """Serves the document."""
    return web.json_response(document())
