"""The Realtime protocol as an adapter of its own: nothing else in ``transceiver`` knows the names of its events.

``Conversation`` is one session's state. It is pure: time is an argument, what it says and plays goes to its
``Surroundings``, and whom it asks for answers is a ``Partner``. The shapes are those of OpenAI's Realtime API as its
public clients read and write them (``openai.types.realtime`` of the ``openai`` package).
"""
