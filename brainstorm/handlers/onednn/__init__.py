"""The operations of OneDnnHandler, by topic, and its use of oneDNN."""
