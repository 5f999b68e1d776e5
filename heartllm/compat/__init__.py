"""The files of HeartLLM's authors: their tokenizer, their tuned language model, their prompts, read as they are.

Source of every key, shape and id: their released code (MIT, commit e580089) as facts; none of it is used here.
"""
