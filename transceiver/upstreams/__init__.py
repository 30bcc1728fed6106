"""The conversation of an agent with another server of the Realtime protocol. Pure: events go in and come out; nothing
here connects or waits."""
