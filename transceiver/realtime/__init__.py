"""The Realtime protocol as an adapter of its own: nothing else in ``transceiver`` knows the names of its events.

``Conversation`` is one session's state. It is pure: time is an argument, its ``Surroundings`` take what it says and
plays, and its ``Partner`` gives the answers. The shapes are those of OpenAI's Realtime API as its public clients read
and write them (``openai.types.realtime`` of the ``openai`` package).
"""
