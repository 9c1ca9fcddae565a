"""Seal, move an alias or record, in a process of its own: ``seal_script.py ROOT JOB [options]``."""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.registry import Registry, place_at

parser = argparse.ArgumentParser()
parser.add_argument("root", help="a folder, or s3://bucket/prefix")
parser.add_argument("job")
parser.add_argument("--bytes", type=int, default=100)
parser.add_argument("--times", type=int, default=1)
parser.add_argument("--limit", type=int)
parser.add_argument("--alias", type=int)
parser.add_argument("--event")
args = parser.parse_args()
if args.limit:
    # The kernel stores what fits, says so, and refuses the rest: a short write, then EFBIG.
    resource.setrlimit(resource.RLIMIT_FSIZE, (args.limit, args.limit))
registry = Registry(Path(args.root), place=place_at(args.root))
try:
    if args.alias:
        registry.set_alias(args.job, "production", args.alias, by="ana")
    elif args.event:
        for turn in range(args.times):
            registry.record(args.event, {"turn": turn, "text": "x" * args.bytes}, by=args.job)
    else:
        for _ in range(args.times):
            sealed = registry.seal(args.job, {"notebook.ipynb": b"x" * args.bytes}, {"by": "ana"})
            sys.stdout.write(f"{sealed.version} {sealed.bundle_digest}\n")
except ToolkitError as error:
    sys.stderr.write(f"{error} ({error.where})\n")
    sys.exit(error.exit_code)
