"""A git revision of a program: its own worktree, its own process, a bundle from a cache."""

from hlo_lab.revisions.dumping import ProgramMissingError, dump_revision
from hlo_lab.revisions.git import WORKING_TREE, Repository

__all__ = ["WORKING_TREE", "ProgramMissingError", "Repository", "dump_revision"]
