"""Local files on their way into a store, many at a time: read, hashed, packed, and what is remembered of them.

Imports `objects` and what is below it; trees and sessions stand above.
"""
