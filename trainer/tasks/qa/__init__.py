"""Open-ended video question answering, as MSRVTT-QA and MSVD-QA have it."""
