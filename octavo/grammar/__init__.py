"""The form of an answer: wishes -> one canonical llguidance grammar -> the tokens that may come next.

A front checks wishes in helper processes (`desk`); the worker follows grammars row by row
(`matchers`). Knows vocabularies and wishes, no requests and no tensors.
"""
