"""Open-ended video question answering, as in MSRVTT-QA and MSVD-QA."""
