"""The form of an answer: wishes -> one canonical llguidance grammar -> the tokens that may come next.

A front checks wishes in a helper process (`helper_pool`); the worker follows grammars row by row
(`matchers`). Knows vocabularies and wishes, no requests and no tensors.
"""
