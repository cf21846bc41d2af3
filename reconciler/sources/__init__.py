"""Where revisions come from: repositories, read through mirrors of our own.

Nothing outside this room knows Git; a slot is written here and nowhere else.
"""
