//! What LLM requests, responses and engine reports are.
