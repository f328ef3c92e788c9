"""`tocsin keys create NAME` and `tocsin keys hash`: API keys, and what a Secret holds of them.

    tocsin keys create billing --secret orders-keys
    tocsin keys hash < key.txt

A key is printed once and kept nowhere. `hash` reads from standard input and never from the command line, which every
user of the machine can list.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys

from tocsin_core.api_keys import check_name, hash_key, make_key

DEFAULT_SECRET = "api-keys"  # noqa: S105 - a name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of `tocsin keys` and their flags."""
    words = parser.add_subparsers(metavar="WORD", required=True)
    create = words.add_parser("create", help="make a key, and print it this once", description="Make a key.")
    create.add_argument("name", metavar="NAME", help="whose key it is; rate limits and metrics go by it")
    create.add_argument("--secret", default=DEFAULT_SECRET, help=f"the pipeline's Secret (default: {DEFAULT_SECRET})")
    create.add_argument("--json", action="store_true", help="print name, key and hash as JSON")
    create.set_defaults(word=_create)
    hashing = words.add_parser("hash", help="print what the Secret holds of a key", description="Hash a key.")
    hashing.set_defaults(word=_hash)


def run(arguments: argparse.Namespace) -> int:
    """Run the word and return 0. Raise ApiKeyError for a name or a key that is none."""
    print(arguments.word(arguments))
    return 0


def describe_key(name: str, key: str, secret: str) -> str:
    """Return what is printed of a new key: the key, its hash, and the commands that put the hash into the Secret."""
    digest = hash_key(key)
    patch = json.dumps({"stringData": {name: digest}})
    return f"""\
{key}

This is the key of {name}; it is shown this once. The Secret gets its hash alone:

  kubectl create secret generic {shlex.quote(secret)} --from-literal={name}={digest}

or, where the Secret is there already, beside the keys it has:

  kubectl patch secret {shlex.quote(secret)} --type=merge --patch='{patch}'"""


def _create(arguments: argparse.Namespace) -> str:
    check_name(arguments.name)
    key = make_key()
    if arguments.json:
        return json.dumps({"name": arguments.name, "key": key, "hash": hash_key(key)})
    return describe_key(arguments.name, key, arguments.secret)


def _hash(arguments: argparse.Namespace) -> str:
    del arguments
    return hash_key(sys.stdin.readline().strip())
