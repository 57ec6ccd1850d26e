#!/usr/bin/env python3
"""Writes an SQLite store as SQL that makes it again: how a fixture of a schema version is made.

dump.py runit.db > version_N.sql
"""

import sqlite3
import sys

database = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
# Tables come in the order of their names, not of their references.
print("PRAGMA foreign_keys = OFF;")
print(*database.iterdump(), sep="\n")
print(f"PRAGMA user_version = {database.execute('PRAGMA user_version').fetchone()[0]};")
