"""Ends of turns side by side: how soon each way of finding them is sure, and how many callers it cuts off."""
